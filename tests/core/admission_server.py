"""A host that is a clock and a list: continuous batching of requests with blocks, one event after another."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from multiverse.serving.admission.pace import Pace, Slo
from multiverse.serving.admission.policies import Policy
from multiverse.serving.admission.step import Family, Step

PROMPT = 200


@dataclass
class Asked:
    """A request: tokens before its block, of each branch, and behind it; without branches a plain one."""

    arrival: float
    before: int
    branches: Sequence[int] = ()
    behind: int = 0
    slo: Slo = field(default=Slo())

    @property
    def tokens(self) -> int:
        return self.before + sum(self.branches) + self.behind


@dataclass(eq=False)
class _Served:
    asked: Asked
    pace: Pace
    left: list[int]
    before: int
    behind: int
    held_since: dict[int, int] = field(default_factory=dict)
    said: list[int] = field(default_factory=list)

    def open(self) -> list[int]:
        return [] if self.before else [i for i, left in enumerate(self.left) if left]


@dataclass
class Report:
    """What came of it: by request, whether its SLO was met, when it ended, and which branch said each token."""

    met: list[bool]
    ended: list[float]
    said: list[list[int]]
    longest_held: int
    steps: int

    @property
    def goodput(self) -> float:
        return sum(self.met) / max(self.ended)


def serve(asked: Sequence[Asked], policy: Policy | None, seconds: Callable[[int, int], float]) -> Report:
    """Answer all requests; `seconds` of a step by its width and what it reads."""
    arrivals = [(a.arrival, i) for i, a in enumerate(asked)]
    heapq.heapify(arrivals)
    all_served: list[_Served] = []
    for a in asked:
        all_served.append(_Served(a, Pace(a.slo, a.arrival, a.tokens), list(a.branches), a.before, a.behind))
    busy: list[_Served] = []
    report = Report([False] * len(asked), [0.0] * len(asked), [], 0, 0)
    now = 0.0
    while arrivals or busy:
        if not busy:
            now = max(now, arrivals[0][0])
        while arrivals and arrivals[0][0] <= now:
            busy.append(all_served[heapq.heappop(arrivals)[1]])
        report.steps += 1
        rows = _rows(busy, policy, report, now)
        width, read = len(rows), sum(PROMPT + len(one.said) for one, _ in rows)
        took = seconds(width, read)
        now += took
        if policy is not None and policy.step_time is not None:
            policy.step_time.learn(width, read, took)
        for one, branch in rows:
            _say(one, branch)
            one.pace.first = now if one.pace.first is None else one.pace.first
        for one in [one for one in busy if len(one.said) == one.asked.tokens]:
            busy.remove(one)
            at = all_served.index(one)
            report.met[at], report.ended[at] = one.pace.met(len(one.said), now), now
    report.said = [one.said for one in all_served]
    return report


def _rows(busy: Sequence[_Served], policy: Policy | None, report: Report, now: float) -> list[tuple[_Served, int]]:
    forked = [one for one in busy if one.open()]
    rows = [(one, -1) for one in busy if not one.open()]
    if policy is None or not forked:
        return rows + [(one, branch) for one in forked for branch in one.open()]
    families = [
        Family(
            [one.held_since.get(branch, report.steps) for branch in one.open()],
            len(one.open()) * (PROMPT + len(one.said)),
            one.pace.slack(len(one.said), now),
        )
        for one in forked
    ]
    slack = min((one.pace.slack(len(one.said), now) for one, _ in rows), default=math.inf)
    read = sum(PROMPT + len(one.said) for one, _ in rows)
    plan = policy.plan(Step(report.steps, families, len(rows), read, slack))
    for i, one in enumerate(forked):
        for j, branch in enumerate(one.open()):
            if plan.runs(i, j):
                since = one.held_since.pop(branch, report.steps)
                report.longest_held = max(report.longest_held, report.steps - since)
                rows.append((one, branch))
            else:
                one.held_since.setdefault(branch, report.steps)
    return rows


def _say(one: _Served, branch: int) -> None:
    one.said.append(branch)
    if branch >= 0:
        one.left[branch] -= 1
    elif one.before:
        one.before -= 1
    else:
        one.behind -= 1
