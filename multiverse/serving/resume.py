"""Where a sequence that holds blocks can go on behind what a prefix cache still has of it. Same on every host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class ResumePoint(NamedTuple):
    """Where to go on.

    Attributes:
        part: the part (`multiverse.decoding.replay`) that is to be computed next, or the rest of it.
        length: tokens before it, or within it, whose KV is taken from the cache.
    """

    part: int
    length: int


def resume_point(spans: Sequence[tuple[int, int]], cached: int, size: int, whole: bool) -> ResumePoint:
    """Where to go on: in the last part that begins within what is cached, so that no branch is computed in vain.

    Args:
        spans: of each part, where its own tokens lie in the order of KV (`KVOrder.spans`); the first begins at 0.
        cached: tokens that the cache has, from the first on.
        size: tokens of a block or page; only whole ones are taken.
        whole: whether a part that forks may be taken up to its end; else, as of the last part, a token of it is left.
    """
    for part in range(len(spans) - 1, -1, -1):
        start, end = spans[part]
        left = part == len(spans) - 1 or not whole
        length = min(cached, end - left) // size * size
        if length >= start:
            break
    return ResumePoint(part, length)
