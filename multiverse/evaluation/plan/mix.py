"""Answers that are made up: plain ones, most of those with blocks narrow with much text around them, some wide."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

PLAIN, NARROW, WIDE = "plain", "narrow", "wide"
_ONE_OF = 5
"""One answer with a block of so many is wide."""
_TEXT, _PLAIN, _SHORT, _LONG, _WIDTH = 40, (40, 120), (6, 18), (24, 72), 16


@dataclass(frozen=True)
class Made:
    """An answer: what kind it is of, and tokens before its block, of each branch, and behind it."""

    kind: str
    before: int
    branches: tuple[int, ...] = ()
    behind: int = 0


def make_up(rng: Random, share: float, scale: int = 1) -> Made:
    """One answer, which has a block with probability `share`; all lengths times `scale`."""

    def length(least: int, most: int) -> int:
        return scale * rng.randint(least, most)

    if rng.random() >= share:
        return Made(PLAIN, length(*_PLAIN))
    wide = rng.random() < 1 / _ONE_OF
    branches = [length(*_LONG) for _ in range(_WIDTH)] if wide else [length(*_SHORT) for _ in range(2)]
    return Made(WIDE if wide else NARROW, scale * _TEXT, tuple(branches), scale * _TEXT)
