"""The rows of a dialect's tags in the input and the output embedding: what learns in every mode of training.

A model tells `<Path>` from `</Path>` by their input rows and writes either by its output rows. Where the two matrices
are one (tied), so are the rows; where they are not, both have to learn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

DELTA = "trainable_tokens_delta"
"""How PEFT calls the parameters that hold rows of single tokens, and nothing else."""


def embeddings(model: Any) -> dict[str, Any]:
    """The input embedding and, if it has rows of its own, the output one, by module name."""
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    tied = layers[1] is None or layers[1].weight is layers[0].weight
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(layer)]: layer for layer in (layers[:1] if tied else layers)}


def tag_rows(model: Any, tags: list[int]) -> list[tuple[Tensor, Any]]:
    """Where the rows of `tags` are trained: parameters ``[rows, hidden]``, each with the index of its rows."""
    deltas = [weight for name, weight in model.named_parameters() if DELTA in name]
    if deltas:
        return [(weight, slice(None)) for weight in deltas]
    return [(layer.weight, torch.tensor(tags)) for layer in embeddings(model).values()]


def freeze_embedding(model: Any, tags: list[int]) -> None:
    """No gradient through the input embedding but for the rows of `tags`; output rows learn, also if tied to it."""

    def only_tags(_module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        learnt = torch.isin(inputs[0], torch.tensor(tags, device=inputs[0].device))
        return torch.where(learnt.unsqueeze(-1), output, output.detach())

    model.get_input_embeddings().register_forward_hook(only_tags)


class TagRate(TrainerCallback):
    """Steps the tags' rows at `ratio` times the rate of the rest.

    They lie in matrices whose other rows keep their rate, so no parameter group can hold them. An optimiser's step is
    proportional to its rate; stretching what it did to these rows is the same, for AdamW to the last bit but rounding.
    """

    def __init__(self, rows: list[tuple[Tensor, Any]], ratio: float) -> None:
        self._rows, self._ratio = rows, ratio
        self._before: list[Tensor] = []

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Remember the rows."""
        self._before = [weight.detach()[index].clone() for weight, index in self._rows]

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Move them on."""
        with torch.no_grad():
            for (weight, index), before in zip(self._rows, self._before, strict=True):
                weight[index] = before + self._ratio * (weight[index] - before)
