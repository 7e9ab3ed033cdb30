"""Branches that are held, in vLLM's scheduler alone: no engine, so each moment and each shortage can be tried."""

from __future__ import annotations

import logging
import math
from itertools import count
from typing import Any

import pytest

pytest.importorskip("vllm", reason="SGLang holds branches in its own way: test_sglang_holding.py")

from policies import OFF, PAIRS, POLICIES, SLACK, Erratic
from vllm_scheduler import Script, ScriptedScheduler

from multiverse.serving.admission import policies
from multiverse.serving.admission.pace import Pace
from multiverse_vllm.scheduler.holding import Holding
from multiverse_vllm.scheduler.queue import Queue

SCRIPTS = [
    Script(4),
    Script(3, 20, nested=True),
    Script(6, 60),
    Script(2, 10, nested=True),
    Script(8, 40),
    *[Script(rest=120)] * 4,
]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be held at all is not tried: let it seem as if it could."""
    monkeypatch.setattr(Pace, "per_token", math.inf)


@pytest.fixture(params=[False, True], ids=["step by step", "a step ahead"])
def late(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def serve(late: bool, **settings: Any) -> ScriptedScheduler:
    host = ScriptedScheduler(late, **settings)
    for script in SCRIPTS:
        host.add(script)
    host.run()
    return host


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "scarce", [{}, {"blocks": 34}, {"rows": 3}], ids=["plenty", "little memory", "places for three"]
)
def test_answers_are_those_of_eager(late: bool, policy: dict[str, str], scarce: dict[str, int]) -> None:
    expected, host = serve(late, **scarce), serve(late, **scarce, **policy)
    assert host.said == expected.said
    assert (host.scheduler.tally.totals["replays"] > 0) == ("blocks" in scarce)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_token_is_computed_twice_for_it(late: bool, policy: dict[str, str]) -> None:
    expected, host = serve(late), serve(late, **policy)
    assert host.scheduled == expected.scheduled
    assert host.steps > expected.steps


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scarce", [{}, {"blocks": 34}], ids=["plenty", "little memory"])
def test_a_branch_may_be_held_at_any_moment(
    late: bool, seed: int, scarce: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step ahead, the tag that ends a branch is under way when it is held: it is taken out of the queue, released."""
    draws = count(100 * seed)
    monkeypatch.setitem(policies.POLICIES, "erratic", lambda _: Erratic(next(draws)))
    removed: list[bool] = []
    remove = Queue.remove

    def watched(queue: Queue, member: Any) -> None:
        held = member.held_since is not None
        remove(queue, member)
        removed.append(held)
        assert member.held_since is None
        assert not held or member.request.next_decode_eligible_step == 0

    monkeypatch.setattr(Queue, "remove", watched)
    expected = serve(late, **scarce).said
    for _ in range(10):  # until that has happened, where it can: one time in two
        assert serve(late, admission="erratic", **scarce).said == expected
        if any(removed) or not late or scarce:
            return
    raise AssertionError("no branch was held when it ended")


def test_what_raises_while_branches_are_looked_at_ends_nobody(late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is about all trees, and costs a step's plan only: who is held stays so until the next one."""
    calls, look = count(), Holding._branches

    def raising(self: Any, tree: Any) -> Any:
        if next(calls) % 7 == 3:
            raise ValueError("planted")
        return look(self, tree)

    expected = serve(late).said
    monkeypatch.setattr(Holding, "_branches", raising)
    assert serve(late, **OFF).said == expected
    assert next(calls) > 7


@pytest.mark.parametrize(("policy", "most"), [(OFF, 1), (PAIRS, 2)])
def test_no_more_branches_of_a_request_go_on_than_the_policy_says(
    late: bool, policy: dict[str, str], most: int
) -> None:
    assert max(serve(late).went_on) == 8
    assert max(serve(late, **policy).went_on) == most


def test_the_tree_says_how_long_each_branch_was_held(late: bool) -> None:
    assert "held" not in serve(late).records["r0"]["tree"][1]
    root, *branches = serve(late, **OFF).records["r0"]["tree"]
    waits = [branch["held"] for branch in branches]
    assert [root["held"], waits[0]] == [0, 0]
    assert 0 < waits[1] < waits[2] < waits[3]
    assert all(branch["held"] < branch["closed"] - branch["started"] for branch in branches)


@pytest.mark.parametrize("blocks", [2048, 34])
def test_whenever_a_request_is_aborted_its_held_branches_go_along(late: bool, blocks: int) -> None:
    host, held = ScriptedScheduler(late, blocks, **OFF), 0
    for steps in range(5, 120, 3):
        name = host.add(Script(4, 25, nested=True))
        for _ in range(steps):
            host.step()
        held = max(held, host.scheduler.trees.gauges()["held_branches"])
        host.abort(name)
        host.run()
        assert host.scheduler.books.remains() == []
        assert host.scheduler.trees.gauges()["held_branches"] == 0
    assert held >= 3


def test_a_policy_that_fails_holds_nobody(
    late: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected, host, planned = serve(late), ScriptedScheduler(late, **OFF), []
    policy = host.scheduler.steps._holding._policy
    plan = policy.plan

    def fail(step: Any) -> Any:
        planned.append(step)
        if len(planned) > 20:
            raise RuntimeError("planted")
        return plan(step)

    monkeypatch.setattr(policy, "plan", fail)
    with caplog.at_level(logging.CRITICAL, "vllm.multiverse"):
        for script in SCRIPTS:
            host.add(script)
        assert host.run() == expected.said
    assert len(planned) > 20


def test_promises_are_counted_and_nothing_is_left_of_them(late: bool) -> None:
    host, day = ScriptedScheduler(late, admission="slack"), 86_400_000
    for slo in [{"tpot_ms": day}] * 3 + [{"deadline_ms": 0.01}] * 2:
        host.add(Script(4), {"slo": slo})
    host.add(Script(4))
    host.abort(host.add(Script(4), {"slo": {"tpot_ms": day}}))
    host.run()
    totals = host.scheduler.tally.totals
    assert (totals["slo_met"], totals["slo_missed"]) == (3, 2)
    assert (host.scheduler.paces._served, host.scheduler.paces._silent) == ({}, set())


def test_what_was_predicted_and_who_had_how_much_time_is_told() -> None:
    host = serve(False, **SLACK)
    assert len(host.samples["step_time_error"]) > 20
    assert host.samples["slack_seconds"]
    assert max(host.samples["slack_seconds"]) < 0


def test_a_plain_request_that_is_late_holds_branches_and_one_that_has_time_does_not() -> None:
    for tpot, holds in (("0.001", True), ("86400000", False)):
        host = ScriptedScheduler(False, admission="slack", tpot_slo_ms=tpot)
        host.add(Script(4))
        host.add(Script(rest=200))
        host.run()
        assert ("held" in host.records["r0"]["tree"][1]) is holds


def test_what_can_not_be_held_in_any_way_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    host = ScriptedScheduler(False, **SLACK)
    host.add(Script(rest=600))
    while len(host.said["r0"]) < 300:  # what a step takes is known by then
        host.step()
    host.add(Script(4))
    host.run()
    assert "held" not in host.records["r1"]["tree"][1]


def test_under_eager_there_is_nothing_of_it() -> None:
    host = ScriptedScheduler()
    assert host.scheduler.paces is None
    assert host.scheduler.steps._holding is None
