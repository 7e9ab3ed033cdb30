"""The random parts of which problems of `multiverse.models.task` are made: lists, operations, labels."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from multiverse.models.serialise import APPLY, Node

#: Sums stay below 100, so a carry goes over one place at most.
LIMIT = 99
#: Lists of at most this many items are too short for a branch of their own.
SHORT = 2
LABELS = "ABCDEFGHI"


def longest(level: float) -> int:
    """Items of the longest list at a level of difficulty."""
    return 5 + round(3 * level)


def draw_digits(rng: Random, count: int) -> list[int]:
    """Distinct digits: then 'the item after this one' is well defined by content, which makes copying learnable."""
    return rng.sample(range(1, 10), count)


def draw_numbers(rng: Random, count: int) -> list[int]:
    """Distinct numbers of one or two digits with a sum of at most `LIMIT`."""
    while True:
        items = [rng.randint(1, rng.choice((9, 40, 80))) for _ in range(count)]
        if sum(items) <= LIMIT and len(set(items)) == count:
            return items


def draw_operation(rng: Random, weights: Sequence[float] = (2, 1, 1)) -> str:
    """One of sum, max and min."""
    return rng.choices(tuple(APPLY), weights)[0]


def draw_outer_operation(rng: Random, nodes: Sequence[Node]) -> str:
    """A sum only where it stays within `LIMIT`."""
    fits = sum(n.value for n in nodes) <= LIMIT
    return draw_operation(rng, (3 if fits else 0, 1, 1))


def draw_parts(rng: Random, count: int, level: float) -> list[tuple[str, str, list[int]]]:
    """Long lists of nearly equal length (balanced branches), at times of any length with at least one long list."""
    most = longest(level)
    lengths = [rng.randint(most - 1, most) for _ in range(count)]
    if rng.random() < 0.1:
        lengths = [rng.randint(SHORT, most) for _ in range(count)]
        lengths[rng.randrange(count)] = rng.randint(4, most)
    return [(LABELS[i], draw_operation(rng), draw_digits(rng, n)) for i, n in enumerate(lengths)]
