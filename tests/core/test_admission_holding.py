"""What both hosts share of holding branches: who can be held, how long for, how requests fare, and by whose clock."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from multiverse.serving.admission import holding, paces
from multiverse.serving.admission.pace import Slo
from multiverse.serving.admission.paces import Served
from multiverse.serving.admission.policies import Policy, Slack, make_policy
from multiverse.serving.admission.step_time import StepTime
from multiverse.serving.metrics import Tally
from multiverse.serving.request_tree import Member
from multiverse_sglang.scheduler.clock import Clock

ROOT = SimpleNamespace(key=(), parent=None)
PROMPT = 40


@dataclass(eq=False)
class Tree:
    """One request: its root, and branches that say so many tokens each."""

    name: str
    lengths: Sequence[int]
    members: dict[tuple[int, ...], Member] = field(default_factory=dict)
    said: int = 0

    def __post_init__(self) -> None:
        self.controller = SimpleNamespace(ledger=SimpleNamespace(used=0))
        for key in [(), *((i,) for i in reversed(range(len(self.lengths))))]:
            strand: Any = SimpleNamespace(key=key, parent=ROOT if key else None)
            self.members[key] = Member(self, strand)
        self.left = {(i,): length for i, length in enumerate(self.lengths)}

    def note_held(self, _: tuple[int, ...]) -> None: ...
    def note_released(self, _: tuple[int, ...]) -> None: ...


class Paces(paces.Paces[Tree]):
    def said(self, client: Tree) -> int:
        return client.said

    def gone(self) -> list[str]:
        return [name for name, served in self._served.items() if not served.client.members]

    def is_whole(self, served: Served[Tree]) -> bool:
        return not any(served.client.left.values())


class Holding(holding.Holding[Member]):
    """Of a host on which everything that is not held says a token in each step."""

    def __init__(self, policy: Policy, known: Paces | None, trees: list[Tree]) -> None:
        super().__init__(policy, known, aside)
        self.trees, self.changes = trees, list[tuple[int, str, list[tuple[int, ...]]]]()

    def decodes(self, member: Member) -> bool:
        return member.tree.left.get(member.strand.key, 0) > 0

    def name(self, tree: Tree) -> str:
        return tree.name

    def length(self, member: Member) -> int:
        return PROMPT + int(member.tree.said)

    def others(self, branches: Sequence[Member]) -> Iterator[tuple[str, int]]:
        assert branches
        return ((tree.name, PROMPT + tree.said) for tree in self.trees if not tree.lengths)

    def hold(self, members: Sequence[Member], step: int) -> None:
        for member in members:
            member.note_held(step)
        self.changes.append((step, "hold", [member.strand.key for member in members]))

    def release(self, members: Sequence[Member]) -> None:
        for member in members:
            member.note_released()
        self.changes.append((self._number, "release", [member.strand.key for member in members]))

    def step(self, now: float = 0.0) -> list[tuple[str, tuple[int, ...]]]:
        """Decide, and do a step; who said something in it."""
        self.before_step([tree for tree in self.trees if tree.lengths and tree.members], now)  # type: ignore[misc]
        spoke = []
        for tree in self.trees:
            for key, left in tree.left.items():
                if left and tree.members[key].held_since is None:
                    tree.left[key] -= 1
                    tree.said += 1
                    spoke.append((tree.name, key))
            if tree.lengths and not any(tree.left.values()):
                tree.members = {}
            if not tree.lengths:
                tree.said += 1
            tree.controller.ledger.used = tree.said
        return spoke


def aside(handler: Any, *args: Any, otherwise: Any) -> Any:
    try:
        return handler(*args)
    except ZeroDivisionError:
        return otherwise


def host(setting: str, *lengths: Sequence[int]) -> Holding:
    policy = make_policy(setting)
    assert policy is not None
    return Holding(policy, None, [Tree(f"r{i}", own) for i, own in enumerate(lengths)])


def test_branches_run_in_document_order_whatever_the_order_in_which_they_began() -> None:
    one = host("off", [2, 3, 1])
    assert [one.step() for _ in range(6)] == [[("r0", (i,))] for i in (0, 0, 1, 1, 1, 2)]
    assert one.changes == [(1, "hold", [(1,), (2,)]), (3, "release", [(1,)]), (6, "release", [(2,)])]


def test_who_does_not_sample_is_neither_held_nor_counted() -> None:
    one = host("cap:1", [5, 5, 5])
    one.trees[0].members[(0,)].draining = True
    one.step()
    assert one.changes == [(1, "hold", [(2,)])]


def test_each_branch_is_held_since_the_step_that_held_it() -> None:
    one = host("off", [9, 9], [9, 9])
    one.step()
    one.step()
    assert [tree.members[(1,)].held_since for tree in one.trees] == [1, 1]


def test_a_policy_that_fails_holds_nobody() -> None:
    one = host("off", [5, 5])
    one.step()
    one._policy = SimpleNamespace(step_time=None, plan=lambda _: 1 // 0)  # type: ignore[assignment]
    assert len(one.step()) == 2


# --- promises --------------------------------------------------------------------------------------------------------


def promised(lengths: Sequence[int], slo: Slo, step_time: StepTime | None = None) -> tuple[Paces, Tree]:
    known, tree = Paces(step_time or StepTime(), Tally()), Tree("r0", lengths)
    known.promise("r0", tree, slo, 100, 0.0)
    return known, tree


def nothing() -> tuple[int, int]:
    return 0, 0


def test_a_request_that_was_promised_nothing_is_not_watched() -> None:
    known, _ = promised([3], Slo())
    assert known._served == {}
    assert known.slack_of("r0", 1e9) == math.inf


@pytest.mark.parametrize(("left", "counted"), [(0, (1, 0)), (3, (0, 0))])
def test_a_whole_answer_counts_and_one_that_was_aborted_does_not(left: int, counted: tuple[int, int]) -> None:
    known, tree = promised([3], Slo(ttft=1.0))
    tree.said, tree.left, tree.members = 3, {(0,): left}, {}
    known.end(0.5, True, (), nothing)
    assert (known._tally.totals["slo_met"], known._tally.totals["slo_missed"]) == counted
    assert (known._served, known._silent) == ({}, set())


def test_the_first_token_came_when_its_step_was_over_and_from_the_first_fork_on_all_branches_count() -> None:
    known, tree = promised([3, 3], Slo(tpot=1.0))
    tree.said, tree.controller.ledger.used = 1, 7
    known.end(2.0, True, [("r0", tree)], nothing)  # type: ignore[list-item]
    served = known._served["r0"]
    assert served.pace.first == 2.0
    assert known.slack_of("r0", 2.0) == served.pace.slack(7, 2.0)


def test_the_time_of_a_step_begins_where_the_one_before_it_ended_unless_nobody_was_served() -> None:
    learned: list[tuple[int, int, float]] = []
    step_time: Any = SimpleNamespace(learn=lambda *seen: learned.append(seen), error=None)
    known, tree = promised([3], Slo(tpot=1.0), step_time)
    trees: Iterable[Any] = [("r0", tree)]
    known.begin(1.0)
    known.end(1.5, True, trees, lambda: (4, 100))
    known.begin(1.6)
    known.end(2.0, False, trees, lambda: (3, 90))
    known.begin(9.0)
    known.end(9.5, True, trees, nothing)  # a prompt: not learned
    known.end(9.75, True, trees, lambda: (2, 80))
    assert learned == [(4, 100, 0.5), (3, 90, 0.5), (2, 80, 0.25)]


# --- ranks -----------------------------------------------------------------------------------------------------------


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
