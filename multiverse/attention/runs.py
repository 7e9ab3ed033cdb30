"""Slots that stand side by side, as those of a prompt mostly do: they are attended to where they are.

A gather reads and writes what the kernel then reads again: for a row of 500 slots it takes as long as the attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch

from multiverse.attention.shared_prefix import Pass

FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""What `scaled_dot_product_attention` calls on a CPU; asked directly, it also gives the log-sum-exp."""
LEAST = 128
"""Slots of a run, or they are gathered with others: a call of the kernel costs about as much."""


class Run(NamedTuple):
    """A pass whose slots are `first`, `first + 1` and so on."""

    part: Pass
    first: int


def split(passes: Iterable[Pass], table: torch.Tensor, rows: torch.Tensor) -> tuple[list[Run], list[Pass]]:
    """Passes taken apart into runs and what is between them. Causal passes stay whole: they have many queries.

    Args:
        table, rows: as `BatchedAttention.prepare` has them.
    """
    runs: list[Run] = []
    others: list[Pass] = []
    for part in passes:
        at = part.start
        for run in _runs(part, table[rows[part.row], part.start : part.stop]):
            if run.part.start > at:
                others.append(part._replace(start=at, stop=run.part.start))
            runs.append(run)
            at = run.part.stop
        if at < part.stop:
            others.append(part._replace(start=at))
    return runs, others


def _runs(part: Pass, slots: torch.Tensor) -> Iterator[Run]:
    if part.causal or part.slots < LEAST:
        return
    breaks = (slots.diff() != 1).nonzero()[:, 0] + 1
    bounds = torch.cat([breaks.new_zeros(1), breaks, breaks.new_tensor([part.slots])])
    for at in (bounds.diff() >= LEAST).nonzero()[:, 0].tolist():
        start, stop = bounds[at : at + 2].tolist()
        yield Run(part._replace(start=part.start + start, stop=part.start + stop), int(slots[start]))


def apart(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs in lists, none of which has a query twice, or runs of different numbers of queries."""
    lists: list[tuple[set[int], list[Run]]] = []
    for run in runs:
        asked = run.part.queries
        for queries, known in lists:
            if len(known[0].part.queries) == len(asked) and queries.isdisjoint(asked):
                known.append(run)
                queries.update(asked)
                break
        else:
            lists.append((set(asked), [run]))
    return [known for _, known in lists]


class Views:
    """Runs of as many queries each, which they don't have in common.

    Attributes:
        queries: who attends, run after run, int64.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.queries = torch.tensor([query for run in runs for query in run.part.queries])
        self._wide = len(runs[0].part.queries)
        self._runs = [(run.first, run.part.slots) for run in runs]

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Results and log-sum-exp of `queries`; the queries of heads that share a KV head attend side by side."""
        runs, wide, (heads, width), kv_heads = len(self._runs), self._wide, query.shape[1:], key.shape[1]
        share = heads // kv_heads
        lines = query[self.queries].view(runs, wide, kv_heads, share, width).transpose(1, 2).flatten(2, 3)
        keys, values = key.transpose(0, 1)[None], value.transpose(0, 1)[None]
        found = [
            FUSED(
                lines[at : at + 1], *(kv.narrow(2, first, slots).to(query.dtype) for kv in (keys, values)), scale=scale
            )
            for at, (first, slots) in enumerate(self._runs)
        ]
        outputs, sums = (torch.cat(some) for some in zip(*found, strict=True))
        outputs = outputs.view(runs, kv_heads, wide, share, width).transpose(1, 2)
        sums = sums.view(runs, kv_heads, wide, share).transpose(1, 2)
        return outputs.reshape(-1, heads, width), sums.reshape(-1, heads)
