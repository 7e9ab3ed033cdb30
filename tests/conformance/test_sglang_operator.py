"""What operators of SGLang do while trees run: pause, flush, new weights, timeouts, limits (SEMANTICS section 8)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

pytest.importorskip("sglang", reason="these are SGLang's own controls")

import torch
from sglang_host import SGLangHost
from sglang_steps import advance, finish, until_waiting

from multiverse.models import TINY
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse.oracle import check

KINDS = ("nested", "flat", "chain", "single", "nested", "flat")


@pytest.fixture(scope="module")
def prompts(tiny: tuple[Any, Any]) -> list[list[int]]:
    rng = Random(15)
    return [tiny[1].encode(turn(generate(rng, kind, held_out=True))) for kind in KINDS]


@pytest.fixture(scope="module")
def expected(host: SGLangHost, prompts: list[list[int]]) -> list[list[int]]:
    return [answer.ids for answer in host.generate(prompts)]


@pytest.fixture
def configured(host: SGLangHost) -> Iterator[Any]:
    """Sets attributes of the scheduler for one test."""
    before: dict[str, Any] = {}

    def configure(**values: Any) -> None:
        before.update(host.configure(**values) | before)

    yield configure
    host.configure(**before)


# --- weights and caches ----------------------------------------------------------------------------------------------


def test_a_pause_that_retracts_makes_trees_give_up_all_kv_and_answers_are_those_of_the_kv_computed_afterwards(
    host: SGLangHost, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    """As in a weight update: pause, flush, go on. No KV from before is used: it is overwritten."""
    before = host.counters()["replays"]
    requests = [host.start(prompt) for prompt in prompts]
    for steps in (9, 14, 12, 15, 11, 13, 16, 20, 31):
        advance(host, steps)
        host.operate("pause", "retract")
        assert host.operate("try_flush")
        assert host.leftovers()["slots"] == 0
        host.operate("scramble")
        host.operate("resume")
    assert [answer.ids for answer in finish(host, requests)] == expected
    assert host.counters()["replays"] > before + 20


def test_what_comes_during_a_pause_holds_nothing_across_a_flush(
    host: SGLangHost, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    """A follow-up turn locks what the radix tree has of the turn before."""
    follow_up = prompts[0] + expected[0]
    (plain,) = host.generate([follow_up], max_tokens=4)
    host.operate("pause", "retract")
    request = host.start(follow_up, max_tokens=4)
    assert host.operate("try_flush")
    host.operate("scramble")
    host.operate("resume")
    assert [answer.ids for answer in finish(host, [request])] == [plain.ids]


def test_a_pause_in_place_keeps_kv_and_refuses_to_flush_it_as_sglang_does(
    host: SGLangHost, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    before = host.counters()["replays"]
    requests = [host.start(prompt) for prompt in prompts]
    advance(host, 60)
    host.operate("pause", "in_place")
    assert not host.operate("try_flush")
    host.operate("resume")
    assert [answer.ids for answer in finish(host, requests)] == expected
    assert host.counters()["replays"] == before


def test_while_trees_run_a_flush_is_refused_and_changes_nothing(
    host: SGLangHost, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    requests = [host.start(prompt) for prompt in prompts]
    for _ in range(8):
        advance(host, 12)
        assert not host.operate("try_flush")
    assert [answer.ids for answer in finish(host, requests)] == expected


def test_each_token_is_told_to_be_of_the_weights_that_it_was_generated_with(
    host: SGLangHost, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    """Several branches grow at once, so in document order the versions alternate."""
    request = host.start(prompts[1], multiverse={"return_tree": True})
    until_waiting(host, 2)
    advance(host, 6)
    generated = host.operate("generated", request)
    before = host.operate("new_version", "after")
    (answer,) = finish(host, [request])
    spans = host.operate("versions", request)
    host.operate("new_version", before)
    assert [span[1] for span in spans] == [0, *(end for _, _, end in spans[:-1])]
    assert spans[-1][2] == len(expected[1])
    assert sum(end - start for version, start, end in spans if version != "after") == generated
    assert len(spans) > 3
    assert all(one[0] != other[0] for one, other in pairwise(spans))
    assert answer.record is not None
    strands = answer.record["tree"]
    assert all(strand["weight_versions"][-1][2] == len(strand["token_ids"]) for strand in strands)
    told = [tuple(span) for strand in strands for span in strand["weight_versions"]]
    assert sum(end - start for version, start, end in told if version != "after") == generated
    assert {version for version, _, _ in told} == {before, "after"}


@pytest.mark.parametrize("steps", [60, 75])
def test_after_new_weights_everything_is_computed_with_them(
    host: SGLangHost, tiny: tuple[Any, Any], prompts: list[list[int]], tmp_path: Path, steps: int
) -> None:
    """What was said under the old weights stands; what follows is what the new ones say, over KV of their own."""
    old, new = tiny[0], copy.deepcopy(tiny[0])
    with torch.no_grad():
        for name, weight in new.named_parameters():
            if name.endswith("input_layernorm.weight"):
                weight.mul_(3.0)  # what enters attention: all keys and values change
    new.save_pretrained(tmp_path)
    asked = {"logprobs": 0, "max_tokens": 250, "multiverse": {"return_tree": True}}
    requests = [host.start(prompt, **asked) for prompt in prompts]
    advance(host, steps)
    host.operate("pause", "retract")
    said = host.operate("follow")
    before = host.operate("load", str(tmp_path), "new")
    host.operate("resume")
    finish(host, requests)
    transcripts = {request: host.operate("transcript", request, counts) for request, counts in said.items()}
    host.operate("load", str(TINY), before)
    assert len(said) > 2
    compared, stale = 0, 0.0
    for first, rest in transcripts.values():
        assert check(first, old).max_difference < 1e-4
        found = check(rest, new)
        assert found.max_difference < 1e-4
        stale = max(stale, check(rest, old).max_difference)
        compared += found.compared
    assert compared > 100
    assert stale > 1e-2


# --- timeouts and limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["waiting", "running"])
def test_a_strand_that_waits_or_runs_for_too_long_ends_its_whole_request(
    host: SGLangHost, prompts: list[list[int]], kind: str
) -> None:
    request = host.start(prompts[1])
    until_waiting(host, 2)
    if kind == "running":
        advance(host, 3)
    assert all(name.startswith(f"{request}#") for name in host.operate("time_out", kind))
    (answer,) = finish(host, [request])
    assert answer.finish_reason == f"abort: Request {kind} timeout reached."


def test_the_running_timeout_begins_once_however_many_strands_run(host: SGLangHost, prompts: list[list[int]]) -> None:
    request = host.start(prompts[1])
    advance(host, 1)
    (first,) = host.operate("entered")[request]
    until_waiting(host, 2)
    for _ in range(10):
        host.operate("step")
        assert host.operate("entered").get(request, {first}) == {first}
    finish(host, [request])


def test_strands_that_wait_do_not_count_towards_the_limit_of_queued_requests(
    host: SGLangHost, prompts: list[list[int]], expected: list[list[int]], configured: Any
) -> None:
    configured(max_queued_requests=1)
    first = host.start(prompts[1])
    until_waiting(host, 2)
    second, third = host.start(prompts[2]), host.start(prompts[3])
    answers = finish(host, [first, second, third])
    assert [answer.ids for answer in answers] == [expected[1], expected[2], []]
    assert answers[2].finish_reason == "abort"


def test_a_request_of_more_weight_turns_away_one_that_waits_never_a_strand(
    host: SGLangHost, prompts: list[list[int]], expected: list[list[int]], configured: Any
) -> None:
    """Whatever comes in its place: a prompt with blocks that waits is a request as any other."""
    configured(max_queued_requests=1, enable_priority_scheduling=True)
    strands = host.start(prompts[1], priority=0)
    until_waiting(host, 2)
    structured = host.start(prompts[0] + expected[0], priority=1)
    urgent = host.start(prompts[2], priority=2)
    answers = finish(host, [strands, structured, urgent])
    assert [answer.finish_reason for answer in answers] == ["stop", "abort", "stop"]
    assert [answers[0].ids, answers[2].ids] == [expected[1], expected[2]]


# --- steps in which nothing is scheduled -----------------------------------------------------------------------------


def test_branches_whose_prefill_is_put_off_are_not_taken_for_too_large(
    host: SGLangHost, prompts: list[list[int]], expected: list[list[int]], configured: Any
) -> None:
    configured(prefill_decode_interval=4)
    before = host.counters()["replays"]
    assert [answer.ids for prompt in prompts for answer in host.generate([prompt])] == expected
    assert host.counters()["replays"] == before


def test_a_prompt_with_blocks_waits_for_its_adapter(
    host: SGLangHost, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    follow_up = prompts[0] + expected[0]
    (plain,) = host.generate([follow_up], max_tokens=4)
    host.operate("delay", 12)
    request = host.start(follow_up, max_tokens=4)
    assert [answer.ids for answer in finish(host, [request])] == [plain.ids]
