"""A task family in plain English with independent parts: what people spend, what fits, what a form asks for.

Every problem is written twice, as a block of the ``multiverse`` dialect and line by line; the reasoning is the same.
The families:

======  =====================================================  ================================
kind    the user asks                                          a path
======  =====================================================  ================================
costs   who spends most, least, or what all spend              works out one person's bill
fits    which of several offers meet two conditions            compares one offer
form    to fill in fields from a message                       finds one field
one     the same about a single person, offer or field         no block: there is one part only
chain   how many things somebody has, by way of other people   no block: each step needs another
======  =====================================================  ================================

Only the standard library is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from multiverse.training.everyday.costs import costs
from multiverse.training.everyday.forms import form
from multiverse.training.everyday.offers import fits
from multiverse.training.everyday.problem import KINDS, Kind, Problem
from multiverse.training.everyday.single import chain, one

__all__ = ["KINDS", "Problem", "problems"]

_MIX: dict[Kind, float] = {"costs": 4.0, "fits": 4.0, "form": 4.0, "one": 1.2, "chain": 0.8}
_FAMILIES: dict[Kind, Callable[[Random], Problem]] = {
    "costs": costs,
    "fits": fits,
    "form": form,
    "one": one,
    "chain": chain,
}


def problems(seed: int, held_out: bool) -> Iterator[Problem]:
    """An endless stream of problems of one side of the split, none twice."""
    rng, seen = Random(seed), set()
    while True:
        kind = rng.choices(KINDS, [_MIX[k] for k in KINDS])[0]
        problem = _FAMILIES[kind](rng)
        if problem.held_out == held_out and problem.question not in seen:
            seen.add(problem.question)
            yield problem
