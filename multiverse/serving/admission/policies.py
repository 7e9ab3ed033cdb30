"""Which branches run in a step: `eager`, `off`, `cap:N`, `slack`, or a policy of an operator's own.

Of every request at least its first open branch runs, so each goes on, and its others come first some time. A policy is
pure: it plans by what it is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Protocol

from multiverse.errors import OptionError, shown
from multiverse.serving.admission.step import Plan, Step
from multiverse.serving.admission.step_time import StepTime

EAGER = "eager"
"""All branches run: there is nothing to plan, and no policy."""
LONGEST = 64
"""Steps after which a branch that `slack` holds gets one, whoever is late; one branch in a step."""
LATE = 10
"""Tokens' time by which a request is late that `slack` gives up if it can't be served any faster."""
_DIGITS = 6


class Policy(Protocol):
    """Plans steps.

    Attributes:
        step_time: predicts how long they take, and has to be told how long they took; `None` if that is not asked.
    """

    @property
    def step_time(self) -> StepTime | None: ...

    def plan(self, step: Step) -> Plan: ...


class Cap:
    """At most `most` branches of a request at a time, those that come first in the document."""

    step_time = None

    def __init__(self, most: int) -> None:
        self.most = most

    def plan(self, step: Step) -> Plan:
        """The first ones of each family."""
        return Plan([min(len(family.held_since), self.most) for family in step.families])


class Slack:
    """As many branches as others can spare the time for.

    Requests that have branches open ask for no haste themselves: more of these is what makes them faster.
    """

    def __init__(self) -> None:
        self.step_time = StepTime()

    def plan(self, step: Step) -> Plan:
        """All, if the step is short enough then; else equally many of each family, as many as fit.

        All, too, if somebody is late, and steps with one branch of each are longer than what was promised: then nobody
        is helped by holding, and wider steps say more tokens per second.
        """
        held, reads, slacks = zip(*step.families, strict=True)
        sizes, time = list(map(len, held)), self.step_time
        if not time.ready or step.slack == math.inf:
            return Plan(sizes)
        if time.seconds(step.width + sum(sizes), step.read + sum(reads)) <= step.slack:
            return Plan(sizes)
        per_token, per_read = time.more(1, 0), time.more(0, 1)
        costs = [per_token + per_read * read / size for read, size in zip(reads, sizes, strict=True)]
        others = time.seconds(step.width, step.read)
        if step.slack < -LATE * step.pace and others + sum(costs) > step.pace:
            return Plan(sizes)
        counts = _fill(sizes, costs, slacks, step.slack - others)
        return Plan(counts, _overdue(held, counts, step.number - LONGEST))


def _fill(sizes: list[int], costs: list[float], slacks: Sequence[float], spare: float) -> list[int]:
    """How many of each family fit into `spare` seconds, at `costs` seconds each; one in any case, and not all.

    All families rise to the same level, which narrow ones reach before; what is left goes to those that are latest.
    """
    level, rate, cheapest = 1, sum(costs), min(costs)
    spare -= rate
    if spare < cheapest:
        return [1] * len(sizes)
    for size, cost in sorted(zip(sizes, costs, strict=True)) if spare >= rate else ():
        if rate * (size - level) > spare:
            more = int(spare / rate)
            level, spare = level + more, spare - more * rate
            break
        level, spare, rate = size, spare - rate * (size - level), rate - cost
    counts = [size if size < level else level for size in sizes]
    for i in sorted([i for i, size in enumerate(sizes) if size > level], key=slacks.__getitem__):
        if spare < cheapest:
            break
        if costs[i] <= spare:
            counts[i] += 1
            spare -= costs[i]
    return counts


def _overdue(held: Sequence[Sequence[int]], counts: list[int], last: int) -> tuple[int, int] | None:
    """Of those that don't run, the branch that is held for longest, if it is since step `last` or before."""
    if min(chain.from_iterable(held)) > last:
        return None
    rest = [(first, i) for i, since in enumerate(held) if (first := min(since[counts[i] :], default=last + 1)) <= last]
    if not rest:
        return None
    first, i = min(rest)
    return i, held[i].index(first, counts[i])


def _cap(text: str | None) -> Policy:
    if text is None or not text.isdecimal() or len(text) > _DIGITS or int(text) < 1:
        raise OptionError(
            f"admission 'cap:N' needs a number of branches from 1 to {10**_DIGITS - 1}, got {shown(text)}"
        )
    return Cap(int(text))


POLICIES: dict[str, Callable[[str | None], Policy | None]] = {
    EAGER: lambda _: None,
    "off": lambda _: Cap(1),
    "cap": _cap,
    "slack": lambda _: Slack(),
}
"""By name, what makes a policy of the text behind the colon, if there is any. Another policy is another entry."""


def make_policy(setting: str) -> Policy | None:
    """The policy that `--multiverse-admission` names; `None` if everybody runs.

    Raises:
        OptionError: naming what there is.
    """
    name, colon, argument = setting.partition(":")
    if name not in POLICIES or (colon and name in (EAGER, "off", "slack")):
        raise OptionError(f"admission must be 'eager', 'off', 'cap:N' or 'slack', got {shown(setting)}")
    return POLICIES[name](argument if colon else None)
