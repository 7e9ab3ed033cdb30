"""The block mask of FlexAttention, built from segments: at 32k tokens a second and megabytes, where
`create_block_mask` evaluates n x n pairs. Forward runs on a CPU; backward is CUDA only, as PyTorch says.
"""

from __future__ import annotations

import torch
from torch.nn.attention.flex_attention import BlockMask

from multiverse.attention.intervals import hidden_intervals
from multiverse.structure.layout import Layout

BLOCK_SIZE = 128


def block_mask(layout: Layout, *, block_size: int = BLOCK_SIZE, device: str | torch.device = "cpu") -> BlockMask:
    """Visibility of `layout` as transformers takes it for ``attn_implementation="flex_attention"``.

    Args:
        layout: of ``n`` tokens.
        block_size: tokens per side of a tile.
        device: where the mask is to be.

    Returns:
        a `BlockMask` of shape `[1, 1, n, n]`.
    """
    seen = _seen(layout, block_size)
    partial, full = seen == 1, seen == 2
    intervals = hidden_intervals(layout).to(device)

    def visible(_batch: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        see = key <= query
        for level in range(intervals.shape[1]):
            see = see & ~((key >= intervals[query, level, 0]) & (key < intervals[query, level, 1]))
        return see

    return BlockMask.from_kv_blocks(
        *(tensor.to(device) for tensor in (*_ordered(partial), *_ordered(full))),
        BLOCK_SIZE=block_size,
        mask_mod=visible,
        seq_lengths=(layout.length, layout.length),
    )


def _ordered(tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Number of tiles per row, int32 `[1, 1, rows]`, and the columns, those that count first, `[1, 1, rows, rows]`."""
    columns = tiles.int().argsort(dim=-1, descending=True, stable=True)
    return tiles.sum(-1, dtype=torch.int32)[None, None], columns.int()[None, None]


def _seen(layout: Layout, size: int) -> torch.Tensor:
    """For every tile whether none (0), some (1) or all (2) of its pairs are visible: int8 `[rows, rows]`."""
    rows = (layout.length + size - 1) // size
    counts = torch.zeros(rows, rows, dtype=torch.int64)
    for segment in layout.segments:
        for row in range(segment.start // size, (segment.end - 1) // size + 1):
            first, last = max(segment.start, row * size), min(segment.end, (row + 1) * size)
            visible = [*segment.visible(), (segment.start, first)]
            for start, end in visible:
                counts[row] += (last - first) * _overlap(start, end, rows, size)
            counts[row] += _triangle(first, last, rows, size)
    return (counts > 0).to(torch.int8) + (counts == size * size).to(torch.int8)  # the last tile may be cut: never all


def _overlap(start: int, end: int, rows: int, size: int) -> torch.Tensor:
    """How many tokens of `[start, end)` lie in every column of tiles: int64 `[rows]`."""
    edges = torch.arange(rows) * size
    return (torch.clamp(edges + size, max=end) - torch.clamp(edges, min=start)).clamp(min=0)


def _triangle(first: int, last: int, rows: int, size: int) -> torch.Tensor:
    """Pairs within `[first, last)`, which lies in one tile, by causality alone: int64 `[rows]`."""
    pairs = torch.zeros(rows, dtype=torch.int64)
    pairs[first // size] = (last - first) * (last - first + 1) // 2
    return pairs
