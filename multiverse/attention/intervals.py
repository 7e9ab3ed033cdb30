"""The interval form of the mask: what each token does not see, in O(n x depth) numbers instead of n x n.

For kernels that evaluate their mask themselves (a FlexAttention `mask_mod`, a FlashInfer variant, a Triton kernel with
a tensor indexed by query).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from multiverse.structure.layout import Interval, Layout


class Queries(NamedTuple):
    """Consecutive tokens of a sequence that don't see the same of it: a segment of a layout, or what of it is computed.

    Attributes:
        start, end: token indices, `[start, end)`.
        hidden: intervals of tokens before `start` that they don't see, in order.
    """

    start: int
    end: int
    hidden: tuple[Interval, ...]


def queries(layout: Layout, start: int = 0, end: int | None = None) -> list[Queries]:
    """The tokens `[start, end)` of a layout; all behind `start` if no end is given."""
    last = layout.length if end is None else end
    clipped = [Queries(max(s.start, start), min(s.end, last), s.hidden) for s in layout.segments]
    return [one for one in clipped if one.start < one.end]


def hidden_intervals(layout: Layout) -> torch.Tensor:
    """The earlier tokens that each token does not see.

    Returns:
        int32 tensor `[n, d, 2]`: for each query up to `d` intervals `[start, end)` of keys, in order; unused ones are
        `[0, 0)`. `d` is the number that the deepest query needs, at least 1. Token `i` attends to token `j` iff
        `j <= i` and `j` lies in none of the intervals of `i`.
    """
    return hidden_of(queries(layout))


def hidden_of(computed: Sequence[Queries]) -> torch.Tensor:
    """As `hidden_intervals`, for tokens of any number of sequences; keys are counted within each."""
    depth = max((len(one.hidden) for one in computed), default=0)
    intervals = torch.zeros(sum(one.end - one.start for one in computed), max(depth, 1), 2, dtype=torch.int32)
    at = 0
    for start, end, hidden in computed:
        if hidden:
            intervals[at : at + end - start, : len(hidden)] = torch.tensor(hidden).int()
        at += end - start
    return intervals
