"""What both hosts share of holding branches: who can be held, how long for, and how requests fare."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from toy_admission import Holding, Paces, Tree

from multiverse.serving.admission.pace import Slo
from multiverse.serving.admission.policies import make_policy
from multiverse.serving.admission.step_time import StepTime
from multiverse.serving.metrics import Tally


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
