"""From a row to what a trainer computes with: a model's inputs, and a number per sampled token beside its logits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Any

import torch

from multiverse.attention import positions
from multiverse.training.collator import attention_mask
from multiverse.training.rollouts.rows import Row, to_row
from multiverse.training.rollouts.tree import Rollout


@dataclass(frozen=True)
class Batch:
    """One row as tensors, with ``k`` predictions.

    Attributes:
        inputs: of a causal LM's forward: `input_ids`, `position_ids`, `attention_mask`, `logits_to_keep`.
        targets: ids of the sampled tokens, int64 `[k]`.
        old_logprobs: as the engine reported them, float32 `[k]`.
        temperatures, advantages: float32 `[k]`.
        rollouts: the number of each token's answer, int64 `[k]`.
    """

    inputs: dict[str, Any]
    targets: torch.Tensor
    old_logprobs: torch.Tensor
    temperatures: torch.Tensor
    advantages: torch.Tensor
    rollouts: torch.Tensor

    def logprobs(self, model: Any) -> torch.Tensor:
        """What `model` says of the sampled tokens at their temperatures, float32 `[k]`, with gradients."""
        logits = model(**self.inputs).logits[0].float() / self.temperatures[:, None]
        return logits.log_softmax(-1).gather(1, self.targets[:, None])[:, 0]


def collate(row: Row, attention: str = "sdpa", device: str | torch.device = "cpu") -> Batch:
    """A row as tensors on `device`.

    Args:
        row: of ``n`` tokens and ``k`` predictions.
        attention: the model's attention implementation, as `multiverse.training.collator.collate` takes it.
    """
    columns = list(zip(*row.predictions, strict=True)) or [()] * 7
    places, targets, logprobs, temperatures, advantages, _, rollouts = columns
    inputs = {
        "input_ids": torch.tensor([row.ids], device=device),
        "position_ids": positions([row.layout]).to(device),
        "attention_mask": attention_mask(row.layout, attention, device),
        "logits_to_keep": torch.tensor(places, dtype=torch.int64, device=device),
        "use_cache": False,
    }
    return Batch(
        inputs=inputs,
        targets=torch.tensor(targets, dtype=torch.int64, device=device),
        old_logprobs=torch.tensor(logprobs, dtype=torch.float32, device=device),
        temperatures=torch.tensor(temperatures, dtype=torch.float32, device=device),
        advantages=torch.tensor(advantages, dtype=torch.float32, device=device),
        rollouts=torch.tensor(rollouts, dtype=torch.int64, device=device),
    )


@torch.inference_mode()
def mismatch(model: Any, rollouts: Iterable[Rollout], version: str | None = None) -> float:
    """The largest difference between what engines reported and what a training forward says, in nats; infinite where
    one of them is not a number.

    Args:
        model: a causal LM, in float32 if differences of 1e-4 are to mean something.
        rollouts: answers, whatever their temperatures.
        version: compare only tokens of this version of the weights, which is then that of `model`.
    """
    worst, attention = 0.0, model.config.get_text_config()._attn_implementation
    for rollout in rollouts:
        row = to_row(rollout)
        if version is not None:
            row = Row(row.ids, row.layout, [p for p in row.predictions if p.version == version])
        if row.predictions:
            batch = collate(row, attention, model.device)
            differences = (batch.logprobs(model) - batch.old_logprobs).abs().nan_to_num(nan=inf)
            worst = max(worst, float(differences.max()))
    return worst
