"""Training batches for the embedded model: rows of similar length, positions and masks of the tree they spell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from multiverse.attention.dense import dense_mask
from multiverse.binding import Binding, bind
from multiverse.injected import injected
from multiverse.layout import layout
from multiverse.models.task import Problem, generate
from multiverse.models.tokenizer import TURN_END, turn
from multiverse.parser import parse_ids

Mode = Literal["parallel", "sequential"]
IGNORE = -100
_POOL = 96


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded rows. ``B`` rows of ``L`` tokens.

    Attributes:
        ids: token ids ``[B, L]``.
        labels: token to predict at each place, ``[B, L]``, already shifted; `IGNORE` in the prompt and the padding.
        positions: position ids ``[B, L]``.
        mask: True where a token may look, ``[B, 1, L, L]``.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    mask: Tensor

    @property
    def targets(self) -> int:
        """How many tokens the loss is taken over."""
        return int((self.labels != IGNORE).sum())


@dataclass(slots=True)
class Batches:
    """An endless source of batches of about `tokens` tokens each.

    Attributes:
        causal: share of the rows that keep plain positions and the plain causal mask although their text holds a
            block, so that the model also works in an engine that does not fork.
        level: difficulty of the problems, raised by the training loop (see `task.generate`).
    """

    tokenizer: PreTrainedTokenizerFast
    mode: Mode
    tokens: int
    causal: float
    rng: Random
    level: float = 0.0
    binding: Binding = field(init=False)

    def __post_init__(self) -> None:
        self.binding = bind("multiverse", self.tokenizer)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            rows = sorted(self._rows(), key=lambda row: len(row[0]) + len(row[1]))
            groups: list[list[tuple[list[int], list[int]]]] = [[]]
            for row in rows:
                longest = len(row[0]) + len(row[1])
                if groups[-1] and (len(groups[-1]) + 1) * longest > self.tokens:
                    groups.append([])
                groups[-1].append(row)
            self.rng.shuffle(groups)
            yield from map(self._collate, groups)

    def _rows(self) -> list[tuple[list[int], list[int]]]:
        problems = [generate(self.rng, level=self.level, held_out=False) for _ in range(_POOL)]
        prompts = self.tokenizer([turn(p) for p in problems])["input_ids"]
        solutions = self.tokenizer([self._solution(p) + TURN_END for p in problems])["input_ids"]
        return list(zip(prompts, solutions, strict=True))

    def _solution(self, problem: Problem) -> str:
        return problem.parallel if self.mode == "parallel" else problem.sequential

    def _collate(self, rows: list[tuple[list[int], list[int]]]) -> Batch:
        size, length = len(rows), max(len(p) + len(s) for p, s in rows)
        ids = torch.full((size, length), self.tokenizer.pad_token_id)
        labels = torch.full((size, length), IGNORE)
        positions = torch.arange(length).repeat(size, 1)
        mask = torch.ones(length, length, dtype=torch.bool).tril().repeat(size, 1, 1, 1)
        for i, (prompt, solution) in enumerate(rows):
            n = len(prompt) + len(solution)
            ids[i, :n] = torch.tensor(prompt + solution)
            labels[i, len(prompt) - 1 : n - 1] = ids[i, len(prompt) : n]
            if self.mode == "parallel" and self.rng.random() >= self.causal:
                self._lay_out(prompt + solution, labels[i], positions[i], mask[i, 0])
        return Batch(ids, labels, positions, mask)

    def _lay_out(self, ids: list[int], labels: Tensor, positions: Tensor, mask: Tensor) -> None:
        """Overwrite one row with what the tree of `ids` says: positions, visibility, and no loss on injected tokens."""
        tree = parse_ids(ids, self.binding)
        placed = layout(tree)
        positions[: len(ids)] = torch.tensor(placed.positions)
        mask[: len(ids), : len(ids)] = dense_mask(placed)
        for start, tokens in injected(tree, self.binding):
            labels[start - 1 : start - 1 + len(tokens)] = IGNORE
