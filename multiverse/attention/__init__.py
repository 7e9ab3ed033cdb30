"""Views of a layout that attention kernels understand."""

from multiverse.attention.dense import dense_mask, positions

__all__ = ["dense_mask", "positions"]
