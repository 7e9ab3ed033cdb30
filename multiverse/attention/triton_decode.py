"""Passes of a decode step on a GPU, in two launches of a layer. Not run on a GPU: Triton's interpreter, and compiled.

Each pass is cut into chunks of its queries and of its slots, so that a long prefix which many rows share keeps all of a
GPU's processors busy. All chunks attend in one launch (two, if some have many queries); a second one merges.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
import triton

from multiverse.attention.shared_prefix import Pass
from multiverse.attention.triton_kernels import attend_chunk, merge_parts

NARROW, WIDE = 16, 64
"""Lines of a tile, heads of queries: the fewest that tensor cores take; as many as read a shared pass at once."""
STEP = 64
"""Slots that a program reads at once."""
LEAST_SLOTS = 256
"""Of a chunk, unless its pass has fewer: less is not worth a program of its own."""
WAVES = 2
"""Programs per processor that a step is cut into, if it is long enough."""


def chunks(passes: Iterable[Pass], queries: int, slots: int) -> list[Pass]:
    """Passes cut into such of at most so many queries, each over at most so many slots."""
    found = []
    for part in passes:
        assert not part.causal, "decode steps only"
        tiles = -(-len(part.queries) // queries)
        for tile in range(tiles):
            mine = part.queries[tile * len(part.queries) // tiles : (tile + 1) * len(part.queries) // tiles]
            for start in range(part.start, part.stop, slots):
                found.append(Pass(mine, part.row, start, min(start + slots, part.stop)))
    return found


def slots_at_once(passes: Sequence[Pass], kv_heads: int, processors: int) -> int:
    """The length of a chunk at which all processors have something to do: a multiple of `STEP`."""
    even = sum(part.slots for part in passes) * kv_heads // (WAVES * processors)
    return max(LEAST_SLOTS, -(-even // STEP) * STEP)


class _Step(NamedTuple):
    """What all layers of a step read, on the device; lists are int32.

    Attributes:
        lists: chunks with few queries, chunks with many, the queries of both, chunk after chunk; then of each query
            where the numbers of its chunks' results begin, and these numbers.
        table, rows: as given.
    """

    lists: Sequence[torch.Tensor]
    table: torch.Tensor
    rows: torch.Tensor


class TritonAttention:
    """Attention of one decode step after the other, each prepared once for all layers of a model.

    Args:
        heads, kv_heads: of the model, on this device; each KV head serves as many consecutive heads.
        page: slots of a page; tables name pages. 1: tables name slots.
        processors: that the device has.
    """

    def __init__(self, heads: int, kv_heads: int, page: int = 1, processors: int = 132) -> None:
        self._share, self._kv_heads, self._page, self._processors = heads // kv_heads, kv_heads, page, processors
        self._step: _Step | None = None

    def prepare(self, passes: Iterable[Pass], table: torch.Tensor, rows: torch.Tensor, queries: int) -> None:
        """Take the passes of a step.

        Args:
            passes: as `shared_prefix.plan` makes them.
            table: pages of sequences, `[sequences, pages at least]`, of any integer type, on the device.
            rows: which sequence each row is, `[rows]`, on the device.
            queries: how many the step has.
        """
        known = list(passes)
        slots = slots_at_once(known, self._kv_heads, self._processors)
        wide = [part for part in known if len(part.queries) * self._share > self._lines(NARROW)]
        narrow = [part for part in known if len(part.queries) * self._share <= self._lines(NARROW)]
        cut = [chunks(some, self._lines(size) // self._share, slots) for some, size in ((narrow, NARROW), (wide, WIDE))]
        asked = [query for part in cut[0] + cut[1] for query in part.queries]
        firsts = iter([0, *accumulate(len(part.queries) for part in cut[0] + cut[1])])
        records = [
            [number for part in some for number in (next(firsts), len(part.queries), part.row, part.start, part.stop)]
            for some in cut
        ]
        counts = torch.bincount(torch.tensor(asked, dtype=torch.int64), minlength=queries).tolist()
        parts = sorted(range(len(asked)), key=asked.__getitem__)  # stable: outer groups first, as in the plan
        moved = _moved([*records, asked, [0, *accumulate(counts)], parts], table.device)
        self._step = _Step(moved, table, rows)

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        """Attention in one layer.

        Args:
            query: `[queries, heads, width]`, as many as were prepared for.
            key, value: of all slots, `[slots, kv heads, width]`, or with pages `[pages, page, kv heads, width]`; any
                strides, but the numbers of a head stand side by side.
            scale: of the scores.

        Returns:
            `[queries, heads, width]`; zeros for a query that no pass has.
        """
        step, (queries, heads, width) = self._step, query.shape
        assert step is not None, "prepare comes first"
        assert query.stride(2) == key.stride(-1) == value.stride(-1) == 1, "numbers of a head side by side"
        narrow, wide, asked, starts, parts = step.lists
        found = query.new_empty(len(asked), heads, width, dtype=torch.float32)
        lse = query.new_empty(len(asked), heads, dtype=torch.float32)
        output, block = torch.empty_like(query, memory_format=torch.contiguous_format), triton.next_power_of_2(width)
        strides = (*query.stride()[:2], *self._strides(key), *self._strides(value), step.table.stride(0))
        for some, size in ((narrow, NARROW), (wide, WIDE)):
            if len(some):
                attend_chunk[(len(some) // 5, self._kv_heads)](
                    query, key, value, step.table, step.rows, some, asked, found, lse, scale, *strides,
                    SHARE=self._share, WIDTH=width, PAGE=self._page,
                    BLOCK_M=self._lines(size), BLOCK_N=STEP, BLOCK_D=block,
                )  # fmt: skip
        merge_parts[(queries, heads)](
            found, lse, starts, parts, output, *output.stride()[:2], WIDTH=width, BLOCK_D=block
        )
        return output

    def _lines(self, size: int) -> int:
        """Lines of a tile: `size`, or more, if one query has more heads to a KV head."""
        return max(size, triton.next_power_of_2(self._share))

    def _strides(self, cache: torch.Tensor) -> tuple[int, int, int]:
        """From page to page, slot to slot and head to head."""
        if self._page == 1 and cache.dim() == 3:
            return cache.stride(0), 0, cache.stride(1)
        return cache.stride(0), cache.stride(1), cache.stride(2)


def _moved(lists: Sequence[Sequence[int]], device: torch.device) -> Sequence[torch.Tensor]:
    """As int32 on `device`, by one copy; each begins at 16 bytes, or Triton would compile for each alignment."""
    flat = torch.tensor([number for some in lists for number in (*some, *[0] * (-len(some) % 4))], dtype=torch.int32)
    if device.type == "cuda":
        flat = flat.pin_memory()
    padded = flat.to(device, non_blocking=True).split([len(some) + -len(some) % 4 for some in lists])
    return [one[: len(some)] for one, some in zip(padded, lists, strict=True)]
