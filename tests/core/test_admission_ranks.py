"""By whose clock branches are held: that of the first rank, for all."""

from __future__ import annotations

import itertools
import time
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from toy_admission import Holding, Paces, Tree

from multiverse.serving.admission.pace import Slo
from multiverse.serving.admission.policies import Slack
from multiverse.serving.metrics import Tally
from multiverse_sglang.scheduler.clock import Clock


class Broadcast:
    """What the first rank receives, and offers itself, goes to all: what SGLang's receivers do."""

    def __init__(self) -> None:
        self.sent: dict[int, list[Any]] = {}

    def receiver(self, rank: int) -> Any:
        turns = itertools.count()

        def recv_requests(local_reqs: list[Any]) -> list[Any]:
            turn = next(turns)
            if rank == 0:
                self.sent[turn] = [f"request {turn}", *local_reqs]
            return self.sent[turn]

        return SimpleNamespace(recv_requests=recv_requests, max_recv_per_poll=rank)


class Rank:
    """One of several schedulers that have to decide alike. Its clock is its own."""

    def __init__(self, rank: int, shared: Broadcast, patch: pytest.MonkeyPatch, obeys: bool = True) -> None:
        self.random, self.patch, self.rank, self.told = Random(rank), patch, rank, 0.0
        self.now = 1000.0 * rank
        policy = Slack()
        known = Paces(policy.step_time, Tally())
        self.holding = Holding(policy, known, [Tree("plain", []), Tree("wide", [60] * 8), Tree("other", [50] * 6)])
        tell = partial(self.__setattr__, "told") if obeys else self.ignore
        self.clock, self.paces = Clock(shared.receiver(rank), tell), known

    def ignore(self, _: float) -> None:
        self.told = self.now

    def turn(self, number: int) -> None:
        """One turn of its event loop: steps take the longer the wider, and each rank's clock measures another time."""
        self.patch.setattr(time, "monotonic", lambda: self.now)
        assert self.clock.recv_requests() == [f"request {number}"]
        if not number:
            self.paces.promise("plain", self.holding.trees[0], Slo(tpot=0.016), 10_000, self.told)
        else:
            trees: Any = [(tree.name, tree) for tree in self.holding.trees if tree.lengths]
            self.paces.end(self.told, True, trees, lambda: (1 + self.spoke, 100 * (1 + self.spoke)))
        self.spoke = len(self.holding.step(self.told))
        self.now += (0.010 + 0.001 * self.spoke) * (1 + self.rank * self.random.random())


@pytest.mark.parametrize("obeys", [True, False])
def test_two_ranks_whose_clocks_disagree_decide_alike(obeys: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And if each went by its own clock, they would not."""
    shared = Broadcast()
    ranks = [Rank(rank, shared, monkeypatch, obeys) for rank in range(2)]
    for number in range(200):
        for rank in ranks:
            rank.turn(number)
    decided = [rank.holding.changes for rank in ranks]
    assert len(decided[0]) > 5
    assert (decided[0] == decided[1]) is obeys
    assert all(not any(tree.left.values()) for tree in ranks[0].holding.trees)


def test_a_clock_is_the_receiver_in_everything_else() -> None:
    told: list[float] = []
    clock = Clock(Broadcast().receiver(0), told.append)
    assert clock.max_recv_per_poll == 0
    assert clock.recv_requests(local_reqs=["an abort"]) == ["request 0", "an abort"]
    assert len(told) == 1
