"""One request against what it was promised: how long until it is late, and whether it was served in time."""

from __future__ import annotations

import math
from dataclasses import dataclass

AHEAD = 0.9
"""Of what was promised, so much is planned with: prompts of others and what can't be predicted take the rest."""


@dataclass(frozen=True)
class Slo:
    """What a request is promised, in seconds; `None`: nothing.

    Attributes:
        ttft: from its arrival to its first token.
        tpot: per token behind that, on the average of its whole answer.
        deadline: from its arrival to its last token.
    """

    ttft: float | None = None
    tpot: float | None = None
    deadline: float | None = None

    def __bool__(self) -> bool:
        return self.ttft is not None or self.tpot is not None or self.deadline is not None


@dataclass(eq=False)
class Pace:
    """How one request is served.

    Attributes:
        slo: what it was promised.
        created: when it came; times are seconds on one clock, whichever the host hands in.
        most: tokens that its answer may have. Nobody knows how many it will, so a deadline is spread over these.
        first: when its first token was there.
    """

    slo: Slo
    created: float
    most: int
    first: float | None = None

    def slack(self, tokens: int, now: float) -> float:
        """Seconds until it is late, below 0 if it is; infinite if nothing was promised.

        Args:
            tokens: of its answer, that are there. What it was served faster than promised, it can spare now.
        """
        due, slo = math.inf, self.slo
        if self.first is None:
            due = math.inf if slo.ttft is None else self.created + AHEAD * slo.ttft
        elif slo.tpot is not None:
            due = self.first + AHEAD * slo.tpot * tokens
        if slo.deadline is not None:
            due = min(due, self.created + AHEAD * slo.deadline * min(1.0, (tokens + 1) / self.most))
        return due - now

    @property
    def per_token(self) -> float:
        """Seconds that a step may take for good; infinite if nothing was promised."""
        times = (self.slo.tpot, None if self.slo.deadline is None else self.slo.deadline / self.most)
        return AHEAD * min((time for time in times if time is not None), default=math.inf)

    def met(self, tokens: int, now: float) -> bool:
        """Whether all that was promised was held, of an answer of `tokens` whose last one is there `now`."""
        slo, first = self.slo, now if self.first is None else self.first
        return (
            (slo.ttft is None or first - self.created <= slo.ttft)
            and (slo.tpot is None or now - first <= slo.tpot * (tokens - 1))
            and (slo.deadline is None or now - self.created <= slo.deadline)
        )
