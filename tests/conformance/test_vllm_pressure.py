"""Who gives memory back on vLLM, and what it costs: trees in the order of priority and age, never the most senior."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

pytest.importorskip("vllm", reason="it is vLLM that has blocks")

from hosts import Engines
from vllm_host import VLLMHost

from multiverse import Binding
from multiverse.models import TINY
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn


def finish(host: VLLMHost, *requests: str) -> dict[str, list[int]]:
    seen: dict[str, list[int]] = {request: [] for request in requests}
    for _ in range(4000):
        for request, tokens in host.step().items():
            seen[request] += tokens
        if not host.leftovers()["requests"]:
            return seen
    raise AssertionError(f"not finished: {host.leftovers()}")


@pytest.mark.parametrize("width", [5, 14])
def test_a_tree_alone_that_fills_all_memory_sets_branches_back_and_is_not_computed_again_and_again(
    scarce_host: VLLMHost, tiny: tuple[Any, Any], binding: Binding, width: int
) -> None:
    """Branches that never close: some go on to the end of the budget, the others wait without KV."""
    goal = tiny[1].encode("<Parallel>\n<Goal>\n" + "<Outline>\n1: x\n</Outline>\n" * width + "</Goal>")
    never = dict.fromkeys([*binding.tags, *tiny[1].all_special_ids], -100.0)
    before = scarce_host.counters()
    budget = 1023 - len(goal)
    request = scarce_host.start(goal, max_tokens=budget, ignore_eos=True, logit_bias=never)
    assert len(finish(scarce_host, request)[request]) == budget
    after = scarce_host.counters()
    assert after["replays"] - before["replays"] <= 1
    assert after["scheduled"] - before["scheduled"] < 2 * (budget + len(goal))
    assert not any(scarce_host.leftovers().values()), scarce_host.leftovers()


@pytest.fixture(scope="module")
def ranked_host(engines: Engines) -> VLLMHost:
    """Little memory, priorities, and requests that may say which shape their answer has."""
    return engines(str(TINY), blocks=34, late=True, settings={"scheduling_policy": "priority"}, shapes="accept")


def test_a_tree_that_can_not_fit_ends_with_an_error_and_the_others_are_answered(
    ranked_host: VLLMHost, tiny: tuple[Any, Any], binding: Binding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eleven branches that end in their third block have to be there together at the join, in 33 blocks."""
    prompt = tiny[1].encode(turn(generate(Random(8), "flat", held_out=True)))
    (expected,) = ranked_host.generate([prompt])
    monkeypatch.setenv("MULTIVERSE_SHAPES", "accept")  # the front end asks again for each request
    names = [ranked_host.start(prompt) for _ in range(3)]
    never = dict.fromkeys([*binding.tags, *tiny[1].all_special_ids], -100.0)
    shape = {"shape": [4, [[70]] * 11, 4]}
    names.insert(1, ranked_host.start(prompt, max_tokens=950, ignore_eos=True, logit_bias=never, multiverse=shape))
    seen: dict[str, list[int]] = {name: [] for name in names}
    ends = {}
    for _ in range(4000):
        for output in ranked_host.llm.llm_engine.step():
            seen[output.request_id] += output.outputs[0].token_ids
            ends[output.request_id] = output.outputs[0].finish_reason
        if not ranked_host.leftovers()["requests"] and not ranked_host.scheduler.has_requests():
            break
    assert [ends[name] for name in names] == ["stop", "error", "stop", "stop"]
    assert [seen[name] for name in names if ends[name] == "stop"] == [expected.ids] * 3
    assert ranked_host.integrity() == []


def test_with_priorities_the_more_important_tree_is_never_replayed_for_a_lesser_one(
    ranked_host: VLLMHost, tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lesser ones came first; vLLM takes from them by priority, and so do we, or they would take turns for ever."""
    rng = Random(12)
    prompts = [tiny[1].encode(turn(generate(rng, "nested", held_out=True))) for _ in range(6)]
    host = ranked_host
    expected = [host.generate([prompt])[0].ids for prompt in prompts]
    replayed: list[int] = []
    replay = host.scheduler.memory.preempt

    def noted(tree: Any) -> None:
        replayed.append(tree.rank)
        replay(tree)

    monkeypatch.setattr(host.scheduler.memory, "preempt", noted)
    engine = host.llm.llm_engine
    names = []
    for number, prompt in enumerate(prompts):
        names.append(f"ranked-{number}")
        parameters = host._parameters({})
        engine.add_request(names[-1], {"prompt_token_ids": prompt}, parameters, priority=5 - number)
    ends = {}
    for _ in range(4000):
        for output in engine.step():
            if output.finished:
                ends[output.request_id] = list(output.outputs[0].token_ids)
        if not host.leftovers()["requests"]:
            break
    assert [ends[name] for name in names] == expected
    assert next(iter(ends)) == names[-1]
    assert replayed
    assert 0 not in replayed
    assert host.integrity() == []
