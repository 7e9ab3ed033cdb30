"""An exception while one request is handled ends that request with an error, and nothing else (invariant I7).

One is planted in every function of the adapter and of its controllers that vLLM's calls lead to and that is about one
request: in turn, for one of several requests that are decoded together with too little memory for all.
"""

from __future__ import annotations

import copy
import functools
import itertools
import types
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

pytest.importorskip("vllm", reason="the calls are vLLM's")

from vllm.v1.core.sched.scheduler import Scheduler
from vllm_host import VLLMHost
from vllm_planting import ENTRIES, OF_JUNIORS, PLACES, REACHED, functions, plant, raise_here

from multiverse import Controller
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse_vllm.scheduler import (
    admission,
    memory,
    scheduler,
)

KINDS = ("flat", "nested")
VICTIMS = 5


@pytest.fixture(autouse=True)
def marked_controllers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a controller know whose it is, since vLLM's ids are not its business."""
    enroll = admission.Admission.enroll

    @functools.wraps(enroll)
    def mark(self: Any, request: Any, controller: Any, options: Any) -> None:
        controller.victim = request.request_id.rpartition("-")[0]
        enroll(self, request, controller, options)

    monkeypatch.setattr(admission.Admission, "enroll", mark)


@pytest.fixture(scope="module")
def prompts(tiny: tuple[Any, Any]) -> list[list[int]]:
    rng = Random(31)
    return [tiny[1].encode(turn(generate(rng, kind, held_out=True))) for kind in KINDS]


def run(host: VLLMHost, requests: list[str]) -> dict[str, tuple[list[int], str | None]]:
    """Step until nothing is left: tokens and how it ended, by request."""
    tokens: dict[str, list[int]] = {request: [] for request in requests}
    reasons: dict[str, str | None] = dict.fromkeys(requests)
    for _ in range(2000):
        for output in host.llm.llm_engine.step():
            tokens[output.request_id] += output.outputs[0].token_ids
            reasons[output.request_id] = output.outputs[0].finish_reason
        if not host.leftovers()["requests"] and not host.scheduler.has_requests():
            break
    return {request: (tokens[request], reasons[request]) for request in requests}


@pytest.fixture(scope="module")
def answers(scarce_host: VLLMHost, prompts: list[list[int]]) -> list[list[int]]:
    return [scarce_host.generate([prompt])[0].ids for prompt in prompts]


def rounds() -> Iterator[list[tuple[Any, str] | None]]:
    """What fails for each of the nested requests of a round; `None`: nothing, as memory has to stay short."""
    everything = list(functions())
    rest = iter([one for one in everything if one[1] not in OF_JUNIORS])
    while planted := list(itertools.islice(rest, VICTIMS)):
        yield list(planted)
    for one in everything:
        if one[1] in OF_JUNIORS:
            yield [*[None] * (VICTIMS - 1), one]


def start(host: VLLMHost, prompt: list[int]) -> str:
    return host.start(prompt, logprobs=1, multiverse={"return_tree": True})


@pytest.mark.parametrize("at", [1, pytest.param(4, marks=pytest.mark.long)])
def test_whatever_raises_ends_its_request_and_no_other(
    scarce_host: VLLMHost, prompts: list[list[int]], answers: list[list[int]], caplog: pytest.LogCaptureFixture, at: int
) -> None:
    """In each round a flat request that nothing happens to, and nested ones, each with a function that fails for it."""
    raised = set()
    for planted in rounds():
        caplog.clear()
        upcoming = copy.copy(scarce_host._ids)
        other, *victims = (f"request-{next(upcoming)}" for _ in (None, *planted))
        with pytest.MonkeyPatch.context() as monkeypatch:
            named = zip(planted, victims, strict=True)
            calls = [plant(monkeypatch, *one, name, at) if one else [0] for one, name in named]
            begun = [start(scarce_host, prompt) for prompt in (prompts[0], *[prompts[1]] * len(victims))]
            assert begun == [other, *victims]
            ended = run(scarce_host, [other, *victims])
        assert ended[other] == (answers[0], "stop"), planted
        for one, victim, (count,) in zip(planted, victims, calls, strict=True):
            function = one[1] if one else None
            told = [record for record in caplog.records if record.exc_info and f"{victim}-" in record.getMessage()]
            if count >= at:
                raised.add(function)
                assert (ended[victim][1], len(told)) == ("error", 1), function
            else:
                assert (*ended[victim], len(told)) == (answers[1], "stop", 0), function
        assert not any(scarce_host.leftovers().values()), (planted, scarce_host.leftovers())
        assert scarce_host.integrity() == [], planted
    if at == 1:
        assert raised >= REACHED, REACHED - raised


def test_every_entry_of_the_scheduler_is_one_that_vllm_has() -> None:
    assert {"schedule", "update_from_output", "add_request", "finish_requests", "reset_prefix_cache"} <= ENTRIES
    for name in ENTRIES:
        assert hasattr(Scheduler, name)
        assert any(name in vars(place) for place in PLACES)


def test_a_request_that_can_not_even_be_aborted_is_gone_all_the_same(
    scarce_host: VLLMHost, prompts: list[list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        other, victim = (start(scarce_host, prompt) for prompt in prompts[:2])
        monkeypatch.setattr(Controller, "abort", raise_here)
        for _ in range(40):
            scarce_host.step()
        scarce_host.abort(victim)
        assert "Planted" in caplog.text
    seen = run(scarce_host, [other])
    assert seen[other][1] == "stop"
    assert not any(scarce_host.leftovers().values()), scarce_host.leftovers()


def test_a_reset_during_which_a_tree_can_not_be_replayed_ends_that_tree(
    scarce_host: VLLMHost, prompts: list[list[int]], answers: list[list[int]]
) -> None:
    victim = start(scarce_host, prompts[1])
    other = start(scarce_host, prompts[0])
    tokens: list[int] = []
    for _ in range(60):
        tokens += scarce_host.step().get(other, [])
    with pytest.MonkeyPatch.context() as monkeypatch:
        plant(monkeypatch, memory.MemoryPressure, "preempt", victim, 1)
        assert scarce_host.core.reset_prefix_cache(reset_running_requests=True)
    assert scarce_host.leftovers()["blocks"] == 0
    ended = run(scarce_host, [victim, other])
    assert ended[victim][1] == "error"
    assert (tokens + ended[other][0], ended[other][1]) == (answers[0], "stop")


def test_figures_that_can_not_be_made_are_missing_and_that_is_all(
    scarce_host: VLLMHost, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Scheduler, "make_stats", lambda _: types.SimpleNamespace(kv_connector_stats=None))
        monkeypatch.setattr(scheduler.MultiverseScheduler, "_figures", raise_here)
        assert scarce_host.scheduler.make_stats().kv_connector_stats is None
    assert "Planted" in caplog.text


def test_a_block_that_leaks_is_missed_at_rest_and_in_the_middle(
    scarce_host: VLLMHost, prompts: list[list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    """Not only does nothing leak: it would be seen, every so many steps and when nothing runs."""
    pool = scarce_host.scheduler.table.pool
    (leaked,) = pool.get_new_blocks(1)
    try:
        sentence = f"block {leaked.block_id} has 1 references and belongs to nobody"
        assert scarce_host.integrity() == [sentence, "blocks: 1 left"]
        before = scarce_host.counters()["integrity_failures"]
        request = scarce_host.start(prompts[0])
        for _ in range(25):
            scarce_host.step()
        assert scarce_host.counters()["integrity_failures"] == before + 1
        assert sentence in caplog.text
        scarce_host.abort(request)
        assert scarce_host.counters()["integrity_failures"] == before + 2
        assert "blocks: 1 left" in caplog.text
    finally:
        pool.free_blocks([leaked])
        scarce_host.scheduler.start_counting()
