"""vLLM's own n-gram drafts in its V2 model runner, which keeps them: the scheduler knows how many, not which."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from answer import Answer
from runner_kinds import start
from vllm_host import VLLMHost

from multiverse.models import TINY
from multiverse.models.task import KINDS, generate
from multiverse.models.tokenizer import turn
from multiverse.oracle import load


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    rng, (_, tokenizer) = Random(17), load(str(TINY))
    return [list(tokenizer.encode(turn(generate(rng, kind, held_out=True)))) for kind in KINDS]


@pytest.fixture(scope="module")
def plain() -> VLLMHost:
    return start("V2", TINY)


@pytest.fixture(scope="module")
def expected(plain: VLLMHost, prompts: list[list[int]]) -> list[Answer]:
    return plain.generate(prompts, logprobs=2)


@pytest.fixture(scope="module")
def drafting() -> VLLMHost:
    return start("V2 with drafts", TINY)


@pytest.fixture(scope="module")
def prompt(prompts: list[list[int]], expected: list[Answer]) -> list[int]:
    """One whose answer forks, and is short: Triton's interpreter takes 50 ms a row."""
    forks = [(len(answer.ids), i) for i, answer in enumerate(expected) if answer.record]
    return prompts[min(forks)[1]]


def same(found: list[Answer], expected: list[Answer]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.ids == theirs.ids
        assert ours.finish_reason == theirs.finish_reason
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)


def spent(host: VLLMHost, prompts: list[list[int]], **wanted: Any) -> tuple[list[Answer], dict[str, int]]:
    """Answers, and the steps and drafts that they took."""
    before = {**host.counters(), "steps": host.steps}
    answers = host.generate(prompts, **wanted)
    after = {**host.counters(), "steps": host.steps}
    return answers, {name: after[name] - before[name] for name in ("steps", "draft_tokens", "accepted_draft_tokens")}


def test_answers_are_those_without_drafts_in_fewer_steps(
    plain: VLLMHost, drafting: VLLMHost, prompts: list[list[int]], expected: list[Answer]
) -> None:
    found, took = spent(drafting, prompts, logprobs=2)
    same(found, expected)
    assert took["steps"] < spent(plain, prompts)[1]["steps"]
    assert 0 < took["accepted_draft_tokens"] < took["draft_tokens"]
    told = [answer.record["accepted_draft_tokens"] for answer in found if answer.record]
    assert sum(told) == took["accepted_draft_tokens"]
    assert not any(drafting.leftovers().values()), drafting.leftovers()


@pytest.mark.parametrize("budget", [1, 40, 55])
def test_max_tokens_is_exact_whatever_a_step_brings(drafting: VLLMHost, prompt: list[int], budget: int) -> None:
    (answer,) = drafting.generate([prompt], max_tokens=budget)
    assert (len(answer.ids), answer.finish_reason) == (budget, "length")


def test_a_request_says_how_many_tokens_are_drafted_for_it(drafting: VLLMHost, prompt: list[int]) -> None:
    took = {most: spent(drafting, [prompt], multiverse={"drafts": most})[1] for most in (0, 1, None)}
    assert took[0]["draft_tokens"] == 0
    assert took[None]["steps"] < took[1]["steps"] < took[0]["steps"]


@pytest.mark.long
def test_with_little_memory_trees_are_replayed_and_say_the_same(
    prompts: list[list[int]], expected: list[Answer]
) -> None:
    scarce = start("V2 with drafts", TINY, blocks=33)
    same(scarce.generate(prompts, logprobs=2), expected)
    assert scarce.counters()["replays"] > 0
    assert not any(scarce.leftovers().values())


def test_who_samples_beside_others_changes_nothing_of_theirs(
    drafting: VLLMHost, prompts: list[list[int]], expected: list[Answer]
) -> None:
    asked = {"max_tokens": 20, "ignore_eos": True}
    requests = [(prompt, {"logprobs": 2}) for prompt in prompts]
    requests += [(prompts[0], asked | sampling) for sampling in ({"temperature": 1.0}, {"repetition_penalty": 1.3})]
    same(drafting.generate_each(requests)[: len(prompts)], expected)
