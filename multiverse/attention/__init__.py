"""Views of a layout that attention kernels understand."""

from multiverse.attention.dense import dense_mask, positions
from multiverse.attention.flex import block_mask
from multiverse.attention.guard import guard
from multiverse.attention.intervals import hidden_intervals

__all__ = ["block_mask", "dense_mask", "guard", "hidden_intervals", "positions"]
