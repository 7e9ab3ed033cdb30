"""Views of a layout that attention kernels understand."""

from multiverse.attention.dense import additive, dense_mask, positions
from multiverse.attention.flashinfer import batch_arguments, custom_mask, single_arguments
from multiverse.attention.flex import block_mask
from multiverse.attention.guard import guard
from multiverse.attention.intervals import hidden_intervals, hidden_of, queries

__all__ = [
    "additive",
    "batch_arguments",
    "block_mask",
    "custom_mask",
    "dense_mask",
    "guard",
    "hidden_intervals",
    "hidden_of",
    "positions",
    "queries",
    "single_arguments",
]
