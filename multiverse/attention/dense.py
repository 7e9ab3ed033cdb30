"""The dense mask: n x n booleans. Right for tests, small models and the `sdpa` and `eager` paths of transformers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from multiverse.structure.layout import Layout


def dense_mask(layouts: Layout | Sequence[Layout], length: int | None = None) -> torch.Tensor:
    """Visibility of one or several layouts (SEMANTICS section 2).

    Args:
        layouts: one layout, or a batch of them.
        length: padded length `n`; the longest layout's if not given. A padding token sees only itself.

    Returns:
        bool tensor `[n, n]` for one layout, `[batch, 1, n, n]` for a batch: what transformers takes as
        `attention_mask`. True where the query (row) attends to the key (column).
    """
    batch = [layouts] if isinstance(layouts, Layout) else list(layouts)
    n = max(layout.length for layout in batch) if length is None else length
    mask = torch.ones(n, n, dtype=torch.bool).tril().expand(len(batch), n, n).clone()
    for rows, layout in zip(mask, batch, strict=True):
        for segment in layout.segments:
            for start, end in segment.hidden:
                rows[segment.start : segment.end, start:end] = False
        padding = torch.arange(layout.length, n)
        rows[padding] = False
        rows[padding, padding] = True
    return mask[0] if isinstance(layouts, Layout) else mask[:, None]


def additive(mask: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A boolean mask as what is added to attention scores. `sdpa` takes either form; `eager` adds whatever it gets, so
    that a boolean mask would count for nothing there."""
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def positions(layouts: Layout | Sequence[Layout], length: int | None = None) -> torch.Tensor:
    """Position ids of one or several layouts.

    Returns:
        int64 tensor `[n]` for one layout, `[batch, n]` for a batch, padded with 0 to `length`.
    """
    batch = [layouts] if isinstance(layouts, Layout) else list(layouts)
    n = max(layout.length for layout in batch) if length is None else length
    ids = torch.zeros(len(batch), n, dtype=torch.int64)
    for row, layout in zip(ids, batch, strict=True):
        row[: layout.length] = torch.tensor(layout.positions, dtype=torch.int64)
    return ids[0] if isinstance(layouts, Layout) else ids
