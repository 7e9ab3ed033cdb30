"""The interval form of the mask: what each token does not see, in O(n x depth) numbers instead of n x n.

For kernels that evaluate their mask themselves (a FlexAttention `mask_mod`, a FlashInfer variant, a Triton kernel with
a tensor indexed by query).
"""

from __future__ import annotations

import torch

from multiverse.structure.layout import Layout


def hidden_intervals(layout: Layout) -> torch.Tensor:
    """The earlier tokens that each token does not see.

    Returns:
        int32 tensor `[n, d, 2]`: for each query up to `d` intervals `[start, end)` of keys, in order; unused ones are
        `[0, 0)`. `d` is the number that the deepest query needs, at least 1. Token `i` attends to token `j` iff
        `j <= i` and `j` lies in none of the intervals of `i`.
    """
    depth = max((len(segment.hidden) for segment in layout.segments), default=0)
    intervals = torch.zeros(layout.length, max(depth, 1), 2, dtype=torch.int32)
    for segment in layout.segments:
        if segment.hidden:
            intervals[segment.start : segment.end, : len(segment.hidden)] = torch.tensor(segment.hidden).int()
    return intervals
