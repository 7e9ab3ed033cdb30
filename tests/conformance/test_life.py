"""A request's life among others: budgets, streams, aborts, scarce memory, plain traffic. Nothing is left behind."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from answer import Host
from tiers import Sizes

from multiverse import Binding
from multiverse.models.task import Problem, generate
from multiverse.models.tokenizer import turn


def encode(tokenizer: Any, problem: Problem) -> list[int]:
    return list(tokenizer.encode(turn(problem)))


@pytest.fixture
def nested(tiny: tuple[Any, Any]) -> list[int]:
    """A prompt that makes the model nest."""
    return encode(tiny[1], generate(Random(2), "nested", 2, held_out=True))


def finish(host: Host, *requests: str, steps: int = 3000) -> dict[str, list[int]]:
    """Step until nothing comes any more; the tokens each client saw."""
    seen: dict[str, list[int]] = {request: [] for request in requests}
    for _ in range(steps):
        for request, tokens in host.step().items():
            seen[request] += tokens
        if not host.leftovers()["requests"]:
            return seen
    raise AssertionError(f"not finished after {steps} steps: {host.leftovers()}")


def test_the_stream_is_the_answer_in_document_order(host: Host, nested: list[int]) -> None:
    (answer,) = host.generate([nested])
    request = host.start(nested)
    assert finish(host, request)[request] == answer.ids


@pytest.mark.parametrize("budget", [1, 2, 40, 90, 91, 92, 150, 200])
def test_max_tokens_is_exact_over_all_branches(host: Host, nested: list[int], budget: int) -> None:
    (answer,) = host.generate([nested], max_tokens=budget)
    assert (len(answer.ids), answer.finish_reason) == (budget, "length")
    assert not any(host.leftovers().values()), host.leftovers()


def test_an_abort_at_any_moment_frees_the_whole_tree(host: Host, nested: list[int], sizes: Sizes) -> None:
    (answer,) = host.generate([nested])
    steps = answer.record["critical_path_tokens"] + 20  # and a few for forks and joins
    for moment in range(0, steps, sizes.aborts):
        request = host.start(nested)
        for _ in range(moment):
            host.step()
        host.abort(request)
        assert not any(host.leftovers().values()), f"after {moment} steps: {host.leftovers()}"
    assert host.generate([nested])[0].ids == answer.ids


def test_plain_and_structured_requests_do_not_disturb_each_other(
    host: Host, tiny: tuple[Any, Any], sizes: Sizes
) -> None:
    rng = Random(4)
    kinds = (("single", "nested", "chain", "flat", "small", "flat") * 2)[: sizes.problems * 2 // 3]
    prompts = [encode(tiny[1], generate(rng, kind, held_out=True)) for kind in kinds]  # type: ignore[arg-type]
    alone = [host.generate([prompt])[0].ids for prompt in prompts]
    together = [answer.ids for answer in host.generate(prompts)]
    assert together == alone
    assert not any(host.leftovers().values()), host.leftovers()


def test_with_little_memory_trees_are_replayed_and_answers_stay_the_same(
    host: Host, scarce_host: Host, tiny: tuple[Any, Any], problems: list[Problem]
) -> None:
    prompts = [encode(tiny[1], problem) for problem in problems]
    expected = [answer.ids for answer in host.generate(prompts)]
    assert [answer.ids for answer in scarce_host.generate(prompts)] == expected
    assert scarce_host.counters()["replays"] > 0
    assert not any(scarce_host.leftovers().values()), scarce_host.leftovers()


@pytest.mark.undrafted
def test_a_tree_that_fills_all_memory_is_decoded_in_turns_and_others_are_answered(
    scarce_host: Host, tiny: tuple[Any, Any], binding: Binding, nested: list[int]
) -> None:
    """Fourteen branches that never close, with nearly as many tokens as there is memory for."""
    expected = scarce_host.generate([nested])[0].ids
    goal = tiny[1].encode("<Parallel>\n<Goal>\n" + "<Outline>\n1: x\n</Outline>\n" * 14 + "</Goal>")
    never = dict.fromkeys([*binding.tags, *tiny[1].all_special_ids], -100.0)
    huge = scarce_host.start(goal, max_tokens=1023 - len(goal), ignore_eos=True, logit_bias=never)
    other = scarce_host.start(nested)
    seen = finish(scarce_host, huge, other)
    assert seen[other] == expected
    assert len(seen[huge]) == 1023 - len(goal)
    assert not any(scarce_host.leftovers().values()), scarce_host.leftovers()


def test_random_operations_leave_nothing_and_change_no_answer(
    scarce_host: Host, tiny: tuple[Any, Any], sizes: Sizes
) -> None:
    """Requests come, some go away at random moments, memory is scarce: who stays gets the undisturbed answer."""
    rng = Random(6)
    prompts = [encode(tiny[1], generate(rng, held_out=True)) for _ in range(8)]
    expected = [scarce_host.generate([prompt])[0].ids for prompt in prompts]
    live: dict[str, int] = {}
    seen: dict[str, list[int]] = {}
    started = finished = 0
    while started < sizes.operations or live:
        if started < sizes.operations and len(live) < 8:
            which = rng.randrange(len(prompts))
            request = scarce_host.start(prompts[which])
            live[request], seen[request] = which, []
            started += 1
        for request, tokens in scarce_host.step().items():
            seen[request] += tokens
        for request, which in list(live.items()):
            if len(seen[request]) == len(expected[which]):
                assert seen[request] == expected[which]
                del live[request]
                finished += 1
            elif rng.random() < 0.002:
                scarce_host.abort(request)
                assert seen[request] == expected[which][: len(seen[request])]
                del live[request]
    assert sizes.operations // 4 < finished < started
    assert not any(scarce_host.leftovers().values()), scarce_host.leftovers()
