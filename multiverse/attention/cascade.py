"""Passes of a decode step as levels of FlashInfer's `MultiLevelCascadeAttentionWrapper`. Not run on a GPU.

A level divides all queries, in one order, among ranges of slots that they attend to; FlashInfer attends level by level
and merges. So queries are sorted such that those of a group stand side by side, and a query that has fewer passes than
others attends to an empty range, for which FlashInfer's kernels give nothing a weight (by reading).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby
from typing import Any, NamedTuple

import torch

from multiverse.attention.shared_prefix import Pass

WORKSPACE = 128 << 20
"""Bytes for results of split passes, as FlashInfer recommends."""


class Level(NamedTuple):
    """Who attends to what; one entry of each list for consecutive queries that attend to the same slots.

    Attributes:
        queries: how many they are.
        rows: whose slots.
        starts, stops: which of them; none if these are the same.
    """

    queries: list[int]
    rows: list[int]
    starts: list[int]
    stops: list[int]


def levels(passes: Iterable[Pass], queries: int) -> tuple[list[int], list[Level]]:
    """The order that queries have to be in, and the levels, outermost first.

    Args:
        passes: as `shared_prefix.plan` makes them: for each query, outer ones first.
        queries: how many the step has.
    """
    chains: list[list[int]] = [[] for _ in range(queries)]
    known = list(passes)
    for number, part in enumerate(known):
        for query in part.queries:
            chains[query].append(number)
    order = sorted(range(queries), key=chains.__getitem__)
    depth = max(map(len, chains), default=0)
    return order, [_level([_at(chains[query], level) for query in order], known) for level in range(depth)]


def _at(chain: Sequence[int], level: int) -> int | None:
    return chain[level] if level < len(chain) else None


def _level(numbers: Iterable[int | None], passes: Sequence[Pass]) -> Level:
    made = Level([], [], [], [])
    for number, alike in groupby(numbers):
        part = Pass((), 0, 0, 0) if number is None else passes[number]
        for values, value in zip(made, (len(list(alike)), part.row, part.start, part.stop), strict=True):
            values.append(value)
    return made


class CascadeAttention:
    """Attention of one decode step after the other, each prepared once for all layers of a model.

    Args:
        heads, kv_heads, width: of the model, on this device.
        scale: of the scores, the same in all layers.
        dtype: of queries, keys and values.
        device: where they are.
    """

    def __init__(
        self, heads: int, kv_heads: int, width: int, scale: float, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        self._shape, self._scale, self._dtype = (heads, kv_heads, width), scale, dtype
        self._workspace = torch.empty(WORKSPACE, dtype=torch.uint8, device=device)
        self._wrappers: dict[int, Any] = {}
        self._depth = 0
        self._order = self._back = torch.empty(0)

    def prepare(self, passes: Iterable[Pass], table: torch.Tensor, rows: torch.Tensor, queries: int) -> None:
        """Take the passes of a step; arguments as those of `TritonAttention.prepare`, for a table of slots."""
        order, found = levels(passes, queries)
        self._depth, device = len(found), table.device
        self._order = torch.tensor(order, device=device)
        self._back = self._order.argsort()
        lengths = [[stop - start for start, stop in zip(one.starts, one.stops, strict=True)] for one in found]
        heads, kv_heads, width = self._shape
        self._wrapper().plan(
            [_indptr(one.queries, device) for one in found],
            [_indptr(some, device) for some in lengths],
            [_slots(one, some, table, rows) for one, some in zip(found, lengths, strict=True)],
            [torch.ones(len(some), dtype=torch.int32, device=device) for some in lengths],  # pages are slots
            heads,
            kv_heads,
            width,
            1,
            causal=False,
            sm_scale=self._scale,
            q_data_type=self._dtype,
            kv_data_type=self._dtype,
        )

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        """Attention in one layer; as `TritonAttention`, with the scale that it was made for."""
        assert scale == self._scale, "one scale for all layers"
        paged = (key[:, None], value[:, None])  # pages of one slot
        found: torch.Tensor = self._wrapper().run(query[self._order].contiguous(), paged)
        return found[self._back]

    def _wrapper(self) -> Any:
        """FlashInfer's, for as many levels as the step has."""
        if self._depth not in self._wrappers:
            from flashinfer.cascade import MultiLevelCascadeAttentionWrapper

            self._wrappers[self._depth] = MultiLevelCascadeAttentionWrapper(self._depth, self._workspace, "NHD")
        return self._wrappers[self._depth]


def _indptr(counts: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor([0, *accumulate(counts)], dtype=torch.int32).to(device, non_blocking=True)


def _slots(level: Level, lengths: Sequence[int], table: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The slots of a level's entries, one after the other, int32; looked up where the table is."""
    before = [start - first for start, first in zip(level.starts, accumulate(lengths, initial=0), strict=False)]
    entries = torch.tensor([level.rows, before, lengths], dtype=torch.int64).to(table.device, non_blocking=True)
    row, shift = entries[:2].repeat_interleave(entries[2], dim=1, output_size=sum(lengths))
    return table[rows[row], torch.arange(sum(lengths), device=table.device) + shift].to(torch.int32)
