"""An exception while one request is handled ends that request with an error, and nothing else (invariant I7).

One is planted in every function of the adapter and of its controllers that vLLM's calls lead to and that is about one
request: in turn, for one of several requests that are decoded together with too little memory for all.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import types
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

pytest.importorskip("vllm", reason="the calls are vLLM's")

from prometheus_client import REGISTRY
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine.output_processor import RequestOutputCollector, RequestState
from vllm.v1.metrics.loggers import StatLoggerManager
from vllm_host import VLLMHost

from multiverse import Controller
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse.serving import request_tree
from multiverse.serving.metrics import Exporter, Tally
from multiverse.serving.verdict import Judge
from multiverse_vllm import hooks
from multiverse_vllm.frontend import inputs
from multiverse_vllm.scheduler import (
    answers,
    blocks,
    failures,
    forks,
    prefix_cache,
    pressure,
    scheduler,
    tokens,
    tree,
)

KINDS = ("flat", "nested")
VICTIMS = 5
PLACES: tuple[Any, ...] = (
    scheduler.MultiverseScheduler,
    answers.Client,
    forks.Forks,
    tokens.Tokens,
    pressure.MemoryPressure,
    prefix_cache.PrefixCache,
    prefix_cache.LayoutKeys,
    blocks.BlockTable,
    tree.Member,
    tree.RequestTree,
    request_tree.Member,
    request_tree.RequestTree,
    Controller,
    Judge,
    answers,
    scheduler,
    tokens,
)
ENTRIES = {row.target.rpartition(".")[2] for row in hooks.HOOKS if row.wrapped and hooks._SCHEDULER in row.target}
"""What vLLM calls of the scheduler: what is planted is called by these."""
LOOKUPS = {"_lives", "_holds", "_held", "_victim_order", "_take", "_forget_tree", "held", "ids", "name_of", "_send"}
"""Look-ups of an attribute or two, and the removal from a dictionary: outside of any guard."""
REACHED = {
    "_adopt", "enroll", "_accept", "_obey", "_follow", "_park", "_enter", "_turn", "_reconcile", "_start",
    "_join", "_publish", "_forget", "_begin", "_replay", "_own_kv", "_answer_tree", "_add_record", "_dissolve",
    "document_logprobs", "record_row", "decide", "ended_by_vllm", "share", "splice", "keys", "__call__", "advance_to",
    "accept", "begin",
}  # fmt: skip
"""Those that must have raised, or this shows nothing."""


class PlantedError(Exception):
    """What goes wrong."""


def functions() -> Iterator[tuple[Any, str]]:
    """Place and name of everything that something can be planted in."""
    for place in PLACES:
        for name, value in vars(place).items():
            function = value.__func__ if isinstance(value, staticmethod) else value
            if not inspect.isfunction(function) or name in ENTRIES | LOOKUPS or name.startswith("__init"):
                continue
            if function.__module__.startswith("multiverse"):
                yield place, name


def concerns(value: Any, victim: str) -> bool:
    """Whether an argument is of the tree of the request whose id begins with `victim`."""
    if isinstance(value, str):
        return value.startswith(f"{victim}-")
    if isinstance(value, tree.Member):
        value = value.tree
    if isinstance(value, tree.RequestTree):
        return () in value.members and value.root.request.request_id.startswith(f"{victim}-")
    if isinstance(value, Judge):
        value = value._controller
    if isinstance(value, Controller):
        return getattr(value, "victim", None) == victim
    return str(getattr(value, "request_id", "")).startswith(f"{victim}-")


def plant(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, victim: str, at: int) -> list[int]:
    """Let `name` raise at its `at`th call about `victim`. Returns a list with the number of such calls so far."""
    found = inspect.getattr_static(place, name)
    original = getattr(place, name)
    calls = [0]

    @functools.wraps(original)
    def broken(*args: Any, **kwargs: Any) -> Any:
        if any(concerns(value, victim) for value in (*args, *kwargs.values())):
            calls[0] += 1
            if calls[0] == at:
                raise PlantedError(f"{name}, call {at}")
        return original(*args, **kwargs)

    monkeypatch.setattr(place, name, staticmethod(broken) if isinstance(found, staticmethod) else broken)
    return calls


@pytest.fixture(autouse=True)
def marked_controllers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a controller know whose it is, since vLLM's ids are not its business."""
    enroll = scheduler.MultiverseScheduler.enroll

    @functools.wraps(enroll)
    def mark(self: Any, request: Any, controller: Any, options: Any) -> None:
        controller.victim = request.request_id.rpartition("-")[0]
        enroll(self, request, controller, options)

    monkeypatch.setattr(scheduler.MultiverseScheduler, "enroll", mark)


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


def start(host: VLLMHost, prompt: list[int]) -> str:
    return host.start(prompt, logprobs=1, multiverse={"return_tree": True})


@pytest.mark.parametrize("at", [1, pytest.param(4, marks=pytest.mark.long)])
def test_whatever_raises_ends_its_request_and_no_other(
    scarce_host: VLLMHost, prompts: list[list[int]], answers: list[list[int]], caplog: pytest.LogCaptureFixture, at: int
) -> None:
    """In each round a flat request that nothing happens to, and nested ones, each with a function that fails for it."""
    raised, everything = set(), iter(list(functions()))
    while planted := list(itertools.islice(everything, VICTIMS)):
        caplog.clear()
        upcoming = copy.copy(scarce_host._ids)
        other, *victims = (f"request-{next(upcoming)}" for _ in (None, *planted))
        with pytest.MonkeyPatch.context() as monkeypatch:
            calls = [plant(monkeypatch, *one, name, at) for one, name in zip(planted, victims, strict=True)]
            begun = [start(scarce_host, prompt) for prompt in (prompts[0], *[prompts[1]] * len(victims))]
            assert begun == [other, *victims]
            ended = run(scarce_host, [other, *victims])
        assert ended[other] == (answers[0], "stop"), planted
        for (_, function), victim, (count,) in zip(planted, victims, calls, strict=True):
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
        assert any(name in vars(place) for place in (*PLACES, failures.Failures))


def test_a_request_that_can_not_even_be_aborted_is_gone_all_the_same(
    scarce_host: VLLMHost, prompts: list[list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        other, victim = (start(scarce_host, prompt) for prompt in prompts[:2])
        monkeypatch.setattr(Controller, "abort", _raise)
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
        plant(monkeypatch, pressure.MemoryPressure, "_replay", victim, 1)
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
        monkeypatch.setattr(scheduler.MultiverseScheduler, "_figures", _raise)
        assert scarce_host.scheduler.make_stats().kv_connector_stats is None
    assert "Planted" in caplog.text


def _raise(*_: Any, **__: Any) -> Any:
    raise PlantedError("here")


def test_a_block_that_leaks_is_missed_at_rest_and_in_the_middle(
    scarce_host: VLLMHost, prompts: list[list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    """Not only does nothing leak: it would be seen, every so many steps and when nothing runs."""
    pool = scarce_host.scheduler._table.pool
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


def test_in_the_front_end_whoever_waits_for_the_request_gets_the_error_and_the_task_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One task makes the outputs of all requests: what the scheduler sent about one of them can't be read."""
    queue = RequestOutputCollector(RequestOutputKind.DELTA, "request-7")
    state = types.SimpleNamespace(request_id="request-7", queue=queue, **dict.fromkeys(("parent_req", "output_kind")))
    made = RequestState.make_request_output
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(inputs, "merge", _raise)
        with pytest.raises(AttributeError):  # vLLM's own method goes on with our stand-in for its state
            made(state, [], None, None, None, {inputs.RECORD: {"blocks": 1}})
    with pytest.raises(RuntimeError, match="the server's log says how"):
        queue.get_nowait()
    assert "request-7" in caplog.text
    assert "PlantedError" in caplog.text


def test_outputs_that_can_not_be_merged_are_an_error_of_their_request(caplog: pytest.LogCaptureFixture) -> None:
    queue = RequestOutputCollector(RequestOutputKind.DELTA, "request-8")
    output = RequestOutput("request-8", None, [], None, [], finished=False)
    queue.put(output)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(RequestOutput, "add", _raise)
        queue.put(output)
    with pytest.raises(RuntimeError, match="the server's log says how"):
        queue.get_nowait()
    assert "request-8" in caplog.text


def test_metrics_of_an_engine_that_was_added_later_are_entered_and_bad_ones_are_only_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exporters = functools.cache(lambda index: Exporter("added", str(index)))
    manager = types.SimpleNamespace(_multiverse_exporters=exporters, per_engine_logger_dict={}, stat_loggers=[])
    tally = Tally()
    tally.count("forks", 3)
    for news in (tally.drain(), {"counts": {"unheard of": 1}}):
        stats = types.SimpleNamespace(kv_connector_stats={"multiverse": news})
        StatLoggerManager.record(manager, stats, None, engine_idx=5)
        assert stats.kv_connector_stats is None
    assert REGISTRY.get_sample_value("multiverse:forks_total", {"model_name": "added", "engine": "5"}) == 3
    assert "unheard of" in caplog.text
