"""How the requests of one scheduler are served beside what they were promised, and how long its steps take.

It has no clock: whoever calls says what time it is, in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from multiverse.serving.admission.pace import Pace, Slo
from multiverse.serving.admission.step_time import StepTime
from multiverse.serving.metrics import Tally
from multiverse.serving.request_tree import RequestTree

_EVERY = 16
"""Of steps without branches, which need no plan, so many pass for one that is learned from."""
Client = TypeVar("Client")
"""A client's request, as the host has it."""


@dataclass(eq=False)
class Served(Generic[Client]):
    """A client's request that was promised something; `tree` from its first fork on."""

    client: Client
    pace: Pace
    tree: RequestTree | None = None


class Paces(Generic[Client]):
    """The clock of the policies that ask for one.

    Args:
        step_time: learns from steps.
        tally: where the scheduler counts.
    """

    def __init__(self, step_time: StepTime, tally: Tally) -> None:
        self._step_time, self._tally = step_time, tally
        self._served: dict[str, Served[Client]] = {}
        self._silent: set[str] = set()
        self._since: float | None = None
        self._steps = 0

    # --- what a host says ----------------------------------------------------------------------------------------

    def said(self, client: Client) -> int:
        """Tokens of the answer of a request that has not forked."""
        raise NotImplementedError

    def gone(self) -> Iterable[str]:
        """The names of the requests in `self._served` that the host serves no longer."""
        raise NotImplementedError

    def is_whole(self, served: Served[Client]) -> bool:
        """Whether a request that is gone had its whole answer: it was not aborted, and did not fail."""
        raise NotImplementedError

    # --- requests ------------------------------------------------------------------------------------------------

    def promise(self, name: str, client: Client, slo: Slo, most: int, now: float) -> None:
        """A client's request came, and may have `most` tokens; nothing is noted if it was promised nothing."""
        if slo:
            self._served[name] = Served(client, Pace(slo, now, max(1, most)))
            self._silent.add(name)

    def slack_of(self, name: str, now: float) -> float:
        """Seconds until a request is late; infinite if nothing was promised."""
        served = self._served.get(name)
        return math.inf if served is None else served.pace.slack(self._tokens(served), now)

    def others(self, running: Iterable[tuple[str, int]], now: float) -> tuple[int, int, float, float]:
        """Tokens that those who are `running` compute and attend to; of them the least slack, and the least pace.

        Those that wait in a host's queue are not among them: they wait for a place or for KV, which branches that are
        held keep.

        Args:
            running: name and length of each sequence.
        """
        width, read, slack, pace = 0, 0, math.inf, math.inf
        for name, length in running:
            width, read = width + 1, read + length
            served = self._served.get(name)
            if served is not None:
                slack = min(slack, served.pace.slack(self._tokens(served), now))
                pace = min(pace, served.pace.per_token)
        if slack < math.inf:
            self._tally.observe("slack_seconds", slack)
        return width, read, slack, pace

    def _tokens(self, served: Served[Client]) -> int:
        """Of its answer so far, over all branches."""
        return self.said(served.client) if served.tree is None else served.tree.controller.ledger.used

    # --- steps ---------------------------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """A step is scheduled. Its time begins where that of the one before ended, unless nobody was served then."""
        if self._since is None:
            self._since = now

    def end(
        self, now: float, busy: bool, trees: Iterable[tuple[str, RequestTree]], decoded: Callable[[], tuple[int, int]]
    ) -> None:
        """A step is over, and its tokens are where they belong.

        Args:
            busy: whether anybody is served any more.
            trees: of the requests that have forked, by name.
            decoded: tokens that the step computed and those that they attended to; none if it did not only decode:
                what prompts cost per token is something else.
        """
        since, forked = self._since, False
        self._since = now if busy else None
        self._steps += 1
        for name, tree in trees:
            forked = True
            if (served := self._served.get(name)) is not None:
                served.tree = tree
        if since is not None and now > since and (forked or self._steps % _EVERY == 0):
            self._learn(*decoded(), now - since)
        for name in [name for name in self._silent if self._tokens(self._served[name])]:
            self._silent.discard(name)
            self._served[name].pace.first = now
        for name in self.gone():
            self._end(self._served.pop(name), now)
            self._silent.discard(name)

    def _learn(self, width: int, read: int, seconds: float) -> None:
        if width:
            self._step_time.learn(width, read, seconds)
            if self._step_time.error is not None:
                self._tally.observe("step_time_error", self._step_time.error)

    def _end(self, served: Served[Client], now: float) -> None:
        if self.is_whole(served):
            self._tally.count("slo_met" if served.pace.met(self._tokens(served), now) else "slo_missed")
