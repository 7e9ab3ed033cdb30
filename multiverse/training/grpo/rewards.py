"""What an answer is worth: functions of a group of answers to one prompt, by name or as `module:function`.

A reward is `f(answers, **options)` with `answers` a list of `Answer`, and returns a number for each.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from multiverse.errors import TrainingError
from multiverse.training.grpo.answer import Answer
from multiverse.training.grpo.settings import Term

Reward = Callable[..., Sequence[float]]


def answer(answers: Sequence[Answer]) -> list[float]:
    """1 if the stated answer is right."""
    return [float(each.right) for each in answers]


def well_formed(answers: Sequence[Answer]) -> list[float]:
    """1 if the answer follows the grammar, all its blocks were forked, and its turn was ended."""
    return [float(each.well_formed) for each in answers]


def shorter(answers: Sequence[Answer], cap: float = 0.25) -> list[float]:
    """By which share the critical path is shorter than the longest of the right answers, at most `cap`; only if right.

    Positions count and nothing else: blocks, branches and tokens are worth nothing. A branch that does no work adds its
    outline and its header to the path and takes nothing off it.
    """
    longest = max((each.critical_path for each in answers if each.right), default=0)
    return [min(cap, 1 - each.critical_path / longest) if each.right else 0.0 for each in answers]


NAMED: dict[str, Reward] = {"answer": answer, "well_formed": well_formed, "shorter": shorter}


def load(term: Term) -> Reward:
    """The function that a term names, with its options.

    Raises:
        TrainingError: if there is none of that name.
    """
    module, colon, name = term.name.partition(":")
    if not colon:
        if term.name not in NAMED:
            raise TrainingError(f"reward {term.name!r}: known are {', '.join(NAMED)}; your own is `module:function`")
        return partial(NAMED[term.name], **term.options)
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise TrainingError(f"reward {term.name!r} can't be imported: {error}") from error
    return partial(found, **term.options)


class Rewards:
    """The weighted sum of several rewards.

    Raises:
        TrainingError: if one of them can't be found.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = [(term, load(term)) for term in terms]

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        """One number for each of the answers to a prompt."""
        totals = [0.0] * len(answers)
        for term, reward in self.terms:
            values = list(reward(answers))
            if len(values) != len(answers):
                raise TrainingError(f"reward {term.name!r} gave {len(values)} numbers for {len(answers)} answers")
            totals = [total + term.weight * float(value) for total, value in zip(totals, values, strict=True)]
        return totals


def advantages(rewards: Sequence[float], scale: bool) -> list[float]:
    """How far each reward is above the group's mean, in standard deviations of the group with `scale`."""
    mean = sum(rewards) / len(rewards)
    above = [reward - mean for reward in rewards]
    deviation = (sum(each**2 for each in above) / len(above)) ** 0.5
    if deviation < 1e-8:
        return [0.0] * len(above)
    return [each / deviation for each in above] if scale else above
