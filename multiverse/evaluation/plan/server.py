"""A server that is a clock and a list: continuous batching of requests with blocks, under a policy of admission.

The policy is the code that hosts run. A step takes as long as it is told; prompts are in the prefix cache.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from multiverse.serving.admission.pace import Pace, Slo
from multiverse.serving.admission.policies import Policy
from multiverse.serving.admission.step import Family, Step

Row = tuple["_Served", int]
"""A request, and which of its branches says the next token; -1 for itself."""


@dataclass
class Asked:
    """A request: tokens before its block, of each branch, and behind it; without branches a plain one."""

    arrival: float
    before: int
    branches: Sequence[int] = ()
    behind: int = 0
    slo: Slo = field(default=Slo())
    prompt: int = 200

    @property
    def tokens(self) -> int:
        return self.before + sum(self.branches) + self.behind


@dataclass(eq=False)
class _Served:
    number: int
    asked: Asked
    pace: Pace
    left: list[int]
    before: int
    behind: int
    held_since: dict[int, int] = field(default_factory=dict)
    said: list[int] = field(default_factory=list)
    own: list[int] = field(default_factory=list)

    def open(self) -> list[int]:
        return [] if self.before else [i for i, left in enumerate(self.left) if left]

    def read(self, branch: int) -> int:
        """Tokens that its next one attends to: branches don't see each other."""
        return self.asked.prompt + (len(self.said) if branch < 0 else self.asked.before + self.own[branch])

    def say(self, branch: int) -> None:
        self.said.append(branch)
        if branch >= 0:
            self.left[branch] -= 1
            self.own[branch] += 1
        elif self.before:
            self.before -= 1
        else:
            self.behind -= 1


@dataclass
class Report:
    """What came of it: by request, whether its SLO was met, when it ended, and which branch said each token."""

    met: list[bool]
    ended: list[float]
    said: list[list[int]]
    longest_held: int
    steps: int

    @property
    def attainment(self) -> float:
        return sum(self.met) / len(self.met)


def serve(
    asked: Sequence[Asked], policy: Policy | None, seconds: Callable[[int, int], float], room: float = math.inf
) -> Report:
    """Answer all requests, in the order in which they come.

    Args:
        policy: `None` lets all branches run.
        seconds: of a step, by the tokens that it computes and those that they attend to.
        room: tokens whose KV the server holds. A request waits until there is room for all of its own.
    """
    queue = deque(sorted(map(_begin, range(len(asked)), asked), key=lambda one: one.asked.arrival))
    busy, now = list[_Served](), 0.0
    report = Report([False] * len(asked), [0.0] * len(asked), [[] for _ in asked], 0, 0)
    while queue or busy:
        if not busy:
            now = max(now, queue[0].asked.arrival)
        while queue and queue[0].asked.arrival <= now and (not busy or _fits(queue[0], busy, room)):
            busy.append(queue.popleft())
        report.steps += 1
        rows = _rows(busy, policy, report, now)
        width, read = len(rows), sum(one.read(branch) for one, branch in rows)
        took = seconds(width, read)
        now += took
        if policy is not None and policy.step_time is not None:
            policy.step_time.learn(width, read, took)
        for one, branch in rows:
            one.say(branch)
            one.pace.first = now if one.pace.first is None else one.pace.first
        for one in [one for one in busy if len(one.said) == one.asked.tokens]:
            busy.remove(one)
            report.said[one.number], report.ended[one.number] = one.said, now
            report.met[one.number] = one.pace.met(len(one.said), now)
    return report


def _begin(number: int, asked: Asked) -> _Served:
    pace, branches = Pace(asked.slo, asked.arrival, asked.tokens), list(asked.branches)
    return _Served(number, asked, pace, branches, asked.before, asked.behind, own=[0] * len(branches))


def _fits(one: _Served, busy: Sequence[_Served], room: float) -> bool:
    return sum(other.asked.prompt + other.asked.tokens for other in (*busy, one)) <= room


def _rows(busy: Sequence[_Served], policy: Policy | None, report: Report, now: float) -> list[Row]:
    """Who says a token in the next step."""
    forked = [(one, branches) for one in busy if (branches := one.open())]
    rows = [(one, -1) for one in busy if one.before or not any(one.left)]
    if policy is None or not forked:
        return rows + [(one, branch) for one, branches in forked for branch in branches]
    families = [
        Family(
            [one.held_since.get(branch, report.steps) for branch in branches],
            sum(map(one.read, branches)),
            one.pace.slack(len(one.said), now),
        )
        for one, branches in forked
    ]
    slack = min((one.pace.slack(len(one.said), now) for one, _ in rows), default=math.inf)
    pace = min((one.pace.per_token for one, _ in rows), default=math.inf)
    plan = policy.plan(Step(report.steps, families, len(rows), sum(one.read(-1) for one, _ in rows), slack, pace))
    for i, (one, branches) in enumerate(forked):
        for j, branch in enumerate(branches):
            if plan.runs(i, j):
                since = one.held_since.pop(branch, report.steps)
                report.longest_held = max(report.longest_held, report.steps - since)
                rows.append((one, branch))
            else:
                one.held_since.setdefault(branch, report.steps)
    return rows
