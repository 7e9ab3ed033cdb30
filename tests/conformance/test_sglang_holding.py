"""Branches that are held out of SGLang's batches: at each moment, with memory short, and beside its operator.

The adapter's books are compared with SGLang's every few steps, and SGLang's own leak check runs after each.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest

pytest.importorskip("sglang", reason="vLLM holds branches in its own way: test_vllm_holding.py")

from answer import Answer
from hosts import Engines
from policies import OFF, PAIRS, POLICIES, SLACK
from sglang_host import SGLangHost
from sglang_steps import advance, finish

from multiverse.models import TINY
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn

EACH = [pytest.param(OFF, id="off"), pytest.param(PAIRS, id="cap:2", marks=pytest.mark.long), POLICIES[2]]
KINDS = ("nested", "flat", "chain", "single", "nested", "flat")


@pytest.fixture(scope="module")
def make(engines: Engines, late: bool, page: int) -> Any:
    def one(**settings: Any) -> SGLangHost:
        if settings.pop("scarce", False):
            settings["blocks"] = 34 if page == 1 else 48
        made = engines(str(TINY), late=late, page=page, **settings)
        assert isinstance(made, SGLangHost)
        made.operate("patience")
        return made

    return one


@pytest.fixture(scope="module")
def prompts(tiny: tuple[Any, Any]) -> list[list[int]]:
    rng = Random(15)
    return [list(tiny[1].encode(turn(generate(rng, kind, held_out=True)))) for kind in KINDS]


@pytest.fixture(scope="module")
def expected(host: SGLangHost, prompts: list[list[int]]) -> list[list[int]]:
    return said(host, prompts)


def said(host: SGLangHost, prompts: list[list[int]], **asked: Any) -> list[list[int]]:
    return [answer.ids for answer in host.generate(prompts, **asked)]


def until_held(host: SGLangHost, steps: int = 300) -> list[str]:
    """Step until branches are held; their names."""
    for _ in range(steps):
        host.step()
        if held := host.operate("held"):
            return list(held)
    raise AssertionError("nobody was held")


@pytest.mark.parametrize("policy", EACH)
@pytest.mark.parametrize(
    "scarce",
    [{"scarce": True}, {"settings": {"max_running_requests": 3}}],
    ids=["little memory", "places for three"],
)
def test_answers_are_those_of_eager_where_there_is_little(
    make: Any, prompts: list[list[int]], expected: list[list[int]], policy: dict[str, str], scarce: dict[str, Any]
) -> None:
    host = make(**scarce, **policy)
    assert said(host, prompts) == expected
    assert not any(host.leftovers().values()), host.leftovers()
    assert (host.counters()["replays"] > 0) == ("scarce" in scarce)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_token_is_computed_twice_for_it(
    make: Any, host: SGLangHost, late: bool, prompts: list[list[int]], policy: dict[str, str]
) -> None:
    """A step ahead there may be less: the step behind the end of a branch, if it is held then."""

    def scheduled(one: SGLangHost) -> int:
        one.flush()
        before = one.counters()["scheduled"]
        one.generate(prompts)
        return one.counters()["scheduled"] - before

    expected, computed = scheduled(host), scheduled(make(**policy))
    assert computed == expected or (late and expected - 5 < computed < expected)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
@pytest.mark.parametrize("scarce", [{}, {"scarce": True}], ids=["plenty", "little memory"])
def test_a_branch_may_be_held_at_any_moment(
    make: Any, prompts: list[list[int]], expected: list[list[int]], seed: int, scarce: dict[str, Any]
) -> None:
    """A step ahead, the tag that ends a branch is under way when it is held: its run ends, held as it is."""
    host = make(**OFF, integrity_interval="1", **scarce)
    host.operate("erratic", seed)
    assert said(host, prompts) == expected
    assert not any(host.leftovers().values()), host.leftovers()


@pytest.mark.parametrize(("policy", "most"), [(OFF, 1), (PAIRS, 2)])
def test_no_more_branches_of_a_request_go_on_than_the_policy_says(
    make: Any, prompts: list[list[int]], policy: dict[str, str], most: int
) -> None:
    host = make(**policy)
    requests, widest = [host.start(prompt) for prompt in prompts], 0
    while not all(map(host.finished, requests)):
        host.step()
        widest = max([widest, *host.operate("branches").values()])
    assert widest == most


def held(answer: Answer) -> list[float]:
    assert answer.record is not None
    return [strand.get("held", math.nan) for strand in answer.record["tree"]]


def test_the_tree_says_how_long_each_branch_was_held(make: Any, host: SGLangHost, prompts: list[list[int]]) -> None:
    asked = {"multiverse": {"return_tree": True}}
    assert all(map(math.isnan, held(host.generate(prompts[1:2], **asked)[0])))
    root, first, second, *others = held(make(**OFF).generate(prompts[1:2], **asked)[0])
    assert [root, first] == [0, 0]
    assert second > 0
    assert sorted(others) == others or not others


def test_whenever_a_request_is_aborted_its_held_branches_go_along(
    make: Any, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    host, met = make(**OFF), 0
    for steps in range(5, 90, 7):
        request = host.start(prompts[0])
        advance(host, steps)
        met += bool(host.operate("held"))
        host.abort(request)
        assert not any(host.leftovers().values()), f"after {steps} steps: {host.leftovers()}"
        assert host.operate("held") == []
    assert met >= 3
    assert said(host, prompts) == expected


def test_a_server_whose_branches_are_held_is_not_idle_and_flushes_nothing(
    make: Any, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    host = make(**OFF)
    request = host.start(prompts[1])
    until_held(host)
    assert host.operate("idle") == (False, False)
    assert not host.operate("try_flush")
    assert host.operate("held")
    assert [answer.ids for answer in finish(host, [request])] == [expected[1]]


def test_a_pause_that_retracts_makes_held_branches_give_up_their_kv(
    make: Any, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    host = make(**PAIRS)
    requests = [host.start(prompt) for prompt in prompts]
    until_held(host)
    host.operate("pause", "retract")
    assert host.operate("held") == []
    assert host.operate("try_flush")
    host.operate("scramble")
    host.operate("resume")
    assert [answer.ids for answer in finish(host, requests)] == expected


@pytest.mark.parametrize("policy", EACH)
def test_what_sglang_retracts_takes_what_is_held_along(
    make: Any, prompts: list[list[int]], expected: list[list[int]], policy: dict[str, str]
) -> None:
    host = make(**policy)
    host.operate("retract", 20)
    assert said(host, prompts) == expected
    host.operate("retract", 0)
    assert not any(host.leftovers().values()), host.leftovers()


def test_a_policy_that_fails_holds_nobody(make: Any, prompts: list[list[int]], expected: list[list[int]]) -> None:
    host = make(**OFF, integrity_interval="2")
    host.operate("failing", 10)
    requests = [host.start(prompt) for prompt in prompts]
    until_held(host)
    advance(host, 60)
    assert host.operate("held") == []
    assert [answer.ids for answer in finish(host, requests)] == expected
    assert {line for line, _ in host.operate("logged")} == {"multiverse: Holding._plan failed: RuntimeError('planted')"}


ROOM = "multiverse_sglang.scheduler"
PLANTED = [
    (OFF, f"{ROOM}.batches:Batches.hold"),
    (OFF, f"{ROOM}.batches:Batches.release"),
    (SLACK, f"{ROOM}.holding:Holding.others"),
    (SLACK, f"{ROOM}.paces:Paces.gone"),
    (SLACK, f"{ROOM}.paces:Paces.admit"),
]


@pytest.mark.parametrize(("policy", "place"), PLANTED, ids=[place.rpartition(":")[2] for _, place in PLANTED])
def test_what_raises_once_costs_nobody_the_answer(
    make: Any, prompts: list[list[int]], expected: list[list[int]], policy: dict[str, str], place: str
) -> None:
    host = make(**policy)
    host.operate("logged")
    host.operate("plant", place, 2)
    assert said(host, prompts) == expected
    assert not host.operate("remove", place), "what was planted was never called"
    assert len(host.operate("logged")) == 1
    assert not any(host.leftovers().values()), host.leftovers()


def test_a_held_branch_that_is_forgotten_is_a_problem(make: Any, prompts: list[list[int]]) -> None:
    host = make(**OFF, integrity_interval="1000")
    request = host.start(prompts[1])
    names = until_held(host)
    assert host.integrity() == []
    host.operate("drop_held")
    assert [name for name in names if any(name in problem for problem in host.integrity())] == names
    host.abort(request)


def test_promises_are_counted_and_nothing_is_left_of_them(make: Any, prompts: list[list[int]]) -> None:
    host, day = make(admission="slack"), 86_400_000
    _, met, missed = host.operate("promises")
    slos = [{"tpot_ms": day}] * 3 + [{"deadline_ms": 0.01}] * 2
    asked = [(prompt, {"multiverse": {"slo": slo}}) for prompt, slo in zip(prompts, slos, strict=False)]
    dropped = host.start(prompts[0], multiverse={"slo": slos[0]})
    advance(host, 12)
    host.abort(dropped)
    host.generate_each([*asked, (prompts[0], {})])
    advance(host, 3)
    assert host.operate("promises") == (0, met + 3, missed + 2)


def test_penalties_count_what_was_held_as_if_it_had_gone_on(
    make: Any, host: SGLangHost, prompts: list[list[int]]
) -> None:
    """One request, so that no prompt comes in between: behind one SGLang leaves a token out, with and without us."""
    asked = {"frequency_penalty": 0.4, "presence_penalty": 0.3, "min_tokens": 30}
    assert said(make(**OFF), prompts[1:2], **asked) == said(host, prompts[1:2], **asked)
