"""I7: an exception while one request is handled ends that request. Planted wherever SGLang calls the adapter."""

from __future__ import annotations

import asyncio
import logging
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("sglang", reason="these are the calls of SGLang's adapter")

from sglang_host import SGLangHost

from multiverse.decoding.strand import Status
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse.serving.containment import Guard
from multiverse_sglang.scheduler.strict import StrictTags
from multiverse_sglang.scheduler.wrappers import get_total_uncached_sizes, session_held_tokens
from multiverse_sglang.wrappers import WRAPPERS

ROOM = "multiverse_sglang"
PLACES = {
    "Scheduler._add_request_to_queue": [(f"{ROOM}.scheduler.admission:Admission._must_be_watched", 1)],
    "Scheduler.get_next_batch_to_run": [
        (f"{ROOM}.scheduler.memory_pressure:MemoryPressure.make_room", 40),
        (f"{ROOM}.scheduler.memory_pressure:MemoryPressure.defer_new_requests", 40),
        (f"{ROOM}.scheduler.life:Life.start", 0),
    ],
    "Scheduler.process_batch_result": [
        (f"{ROOM}.scheduler.conductor:watch", 5),
        (f"{ROOM}.scheduler.conductor:watch", 60),
        (f"{ROOM}.scheduler.admission:Admission._make_tree", 1),
        (f"{ROOM}.scheduler.admission:catch_up", 0),
        (f"{ROOM}.scheduler.conductor:Conductor.process_results", 45),
        (f"{ROOM}.scheduler.conductor:Conductor._take_apart", 2),
        (f"{ROOM}.scheduler.life:Life.advance", 3),
        (f"{ROOM}.scheduler.quiet:QuietRuns.begin", 9),
        (f"{ROOM}.scheduler.quiet:QuietRuns._follow", 30),
        (f"{ROOM}.scheduler.quiet:is_quiet", 5),
        (f"{ROOM}.scheduler.forks:Forks.start", 2),
        (f"{ROOM}.scheduler.forks:Forks.join", 0),
        (f"{ROOM}.scheduler.conductor:record_row", 60),
        (f"{ROOM}.scheduler.life:show", 25),
    ],
    "Req.update_finish_state": [(f"{ROOM}.scheduler.requests:accept", 20), (f"{ROOM}.scheduler.requests:accept", 150)],
    "Req.init_next_round_input": [(f"{ROOM}.scheduler.wrappers:begin_behind", 3)],
    "allocation:_prefix_kv_indices": [(f"{ROOM}.scheduler.slots:SlotPool.unshare", 2)],
    "ForwardBatch.init_new": [
        (f"{ROOM}.attention.wrappers:prepare_forward", 40),
        (f"{ROOM}.attention.positions:segments_of", 2),
    ],
    "ModelRunner.forward": [(f"{ROOM}.attention.segments:SegmentAttention._write_rows", 0)],
    "SamplingBatchInfo.from_schedule_batch": [(f"{ROOM}.attention.wrappers:complete_penalties", 4)],
    "ScheduleBatch.cumulate_penalty_output_tokens": [(f"{ROOM}.attention.wrappers:step_back", 45)],
    "SchedulerOutputStreamer.stream_output": [(f"{ROOM}.scheduler.streamer:take_extras", 0)],
    "Scheduler.on_idle": [(f"{ROOM}.scheduler.conductor:Conductor.rest", 0)],
    "ScheduleBatch._get_decode_retraction_order": [(f"{ROOM}.scheduler.wrappers:by_seniority", 0)],
    "ScheduleBatch.retract_decode": [(f"{ROOM}.scheduler.memory_pressure:MemoryPressure.let_wait", 0)],
    "Scheduler.abort_request": [(f"{ROOM}.scheduler.conductor:Conductor.abort", 0)],
    "Scheduler.pause_generation": [
        (f"{ROOM}.scheduler.conductor:Conductor.drop_kv", 0),
        (f"{ROOM}.scheduler.preemption:Preemption.preempt", 1),
    ],
    "schedule_batch:release_req": [(f"{ROOM}.scheduler.wrappers:release_retracted", 1)],
    "Scheduler.flush_cache": [(f"{ROOM}.scheduler.conductor:Conductor.before_flush", 0)],
    "Scheduler.record_weight_version_change": [(f"{ROOM}.scheduler.conductor:Conductor.note_version", 0)],
    "Scheduler._abort_on_queued_limit": [(f"{ROOM}.scheduler.waiting_queue:WaitingQueue.as_clients_see_it", 1)],
}
"""By call of SGLang: what of the adapter it leads to, and how many times that does well before it raises."""
OVERRIDDEN = {"Req.update_finish_state"}
"""Calls that lead to the adapter only where a request is of a class of ours."""
NOTHING_TO_RAISE = {
    "server_args:prepare_server_args",
    "ServerArgs.add_cli_args",
    "Scheduler.__init__",
    "Scheduler.get_output_streamer_class",
    "Scheduler.get_prefill_adder_class",
    "Scheduler.is_fully_idle",
    "Scheduler.get_num_allocatable_reqs",
    "allocation:get_last_loc",
    "DetokenizerManager.trim_matched_stop",
    "SchedulerInvariantChecker._get_total_uncached_sizes",
    "SchedulerPoolStatsObserver.session_held_tokens",
    "TokenizerManager.update_request_meta_info",
    "TokenizerManager.generate_request",
}
"""Calls at the start, where a server that can't work had better not start; that only read; and those below."""
SPARED = (
    "conductor:watch",
    "Scheduler.on_idle",
    "ScheduleBatch._get",
    "let_wait",
    "defer_new_requests",
    "as_clients_see_it",
)
"""Where nobody's request is handled, and nobody's ends: SGLang goes on with what it has itself."""
KINDS = ("flat", "nested", "chain", "flat")


def short(target: str) -> str:
    """A hook's target as this page names it."""
    module, _, path = target.partition(":")
    return path if "." in path else f"{module.rpartition('.')[2]}:{path}"


@pytest.fixture(scope="module")
def prompts(tiny: tuple[Any, Any]) -> list[list[int]]:
    rng = Random(17)
    return [tiny[1].encode(turn(generate(rng, kind, held_out=True))) for kind in KINDS]


@pytest.fixture(scope="module")
def expected(host: SGLangHost, prompts: list[list[int]]) -> list[list[int]]:
    return [answer.ids for answer in host.generate(prompts, presence_penalty=0.01)]


def test_every_call_of_sglang_is_on_this_page() -> None:
    assert {short(target) for target in WRAPPERS} | OVERRIDDEN == PLACES.keys() | NOTHING_TO_RAISE


def steps(host: SGLangHost, count: int) -> None:
    for _ in range(count):
        host.operate("step")


def operate(host: SGLangHost, version: str) -> None:
    """What an operator may do, all of it."""
    host.operate("new_version", version)
    host.operate("abort", "nobody")
    host.operate("retract", 3)
    steps(host, 7)
    host.operate("retract", 0)
    host.operate("pause", "retract")
    host.operate("try_flush")
    host.operate("resume")


@pytest.mark.parametrize(("call", "place", "after"), [(c, p, n) for c, places in PLACES.items() for p, n in places])
def test_what_raises_ends_its_request_and_no_other_and_the_engine_goes_on(
    host: SGLangHost, prompts: list[list[int]], expected: list[list[int]], call: str, place: str, after: int
) -> None:
    host.operate("logged")
    host.flush()  # so that prompts with blocks are computed
    (plain,) = host.generate(prompts[:1], multiverse={"enabled": False})
    host.operate("plant", place, after)
    requests = [host.start(prompt, logprobs=1, presence_penalty=0.01) for prompt in prompts[:3]]
    requests.append(host.start(prompts[0] + expected[0], max_tokens=8))
    control = host.start(prompts[0], multiverse={"enabled": False})
    for step in range(2000):
        host.operate("step")
        if step == 70:
            operate(host, f"{place} {after}")
        if all(map(host.finished, [*requests, control])) and not host.leftovers()["requests"]:
            break
    steps(host, 3)
    assert not host.operate("remove", place), "what was planted was never called"
    ends = [host.answer(request).finish_reason for request in requests]
    spared = any(name in f"{call} {place}" for name in SPARED)
    assert not any(host.leftovers().values()), host.leftovers()
    assert host.answer(control).ids == plain.ids
    assert all(end in ("stop", "length") or "internal error" in end for end in ends)
    failed = sum("internal error" in end for end in ends)
    assert failed == 0 if spared else failed >= 1
    for request, end, ids in zip(requests[:3], ends, expected, strict=False):
        assert "internal error" in end or host.answer(request).ids == ids
    logged = host.operate("logged")
    assert all(traceback for _, traceback in logged)
    assert all("planted" in line for line, _ in logged)
    for request, end in zip(requests, ends, strict=True):
        assert any(request in line for line, _ in logged) == ("internal error" in end)
    assert [answer.ids for answer in host.generate(prompts[:1], presence_penalty=0.01)] == expected[:1]


def test_books_that_do_not_agree_are_found_and_counted(host: SGLangHost, prompts: list[list[int]]) -> None:
    host.operate("logged")
    request = host.start(prompts[0])
    while request not in host.operate("trees"):
        host.operate("step")
    host.operate("remember", request)
    host.abort(request)
    host.operate("haunt", True)
    with pytest.raises(AssertionError, match="trees that nothing is under way for.*" + request):
        steps(host, 8)
    assert host.counters()["integrity_failures"] == 1
    host.operate("haunt", False)
    assert [request in line for line, _ in host.operate("logged")] == [True]
    assert not any(host.leftovers().values()), host.leftovers()


def test_what_is_added_to_the_sums_of_sglangs_leak_checks_is_left_out_if_it_raises() -> None:
    class Broken:
        def parked_slots(self) -> int:
            raise RuntimeError("planted")

        retained_slots = parked_slots

    cache = SimpleNamespace(multiverse_conductor=SimpleNamespace(books=Broken()))
    assert get_total_uncached_sizes((7, 3), SimpleNamespace(tree_cache=cache)) == (7, 3)
    assert session_held_tokens(5, SimpleNamespace(tree_cache=cache)) == 5


def test_strict_structure_lets_a_token_pass_whose_mask_raises() -> None:
    failed: list[Any] = []
    controller = SimpleNamespace(binding=SimpleNamespace(ids={}))  # and nothing that says what is allowed
    tree = SimpleNamespace(
        controller=controller, guard=Guard(failed.append, str, logging.getLogger("sglang.multiverse"))
    )
    StrictTags(tree, SimpleNamespace(status=Status.RUNNING)).fill_vocab_mask([[0]], 0)
    assert failed == [tree]


def test_in_a_front_end_a_record_that_can_not_be_read_is_the_error_of_its_request() -> None:
    from multiverse_sglang.frontend.answers import generate_request, update_request_meta_info

    aborted: list[str] = []
    manager = SimpleNamespace(tokenizer=None, abort_request=aborted.append)

    async def outputs(*_: Any) -> Any:
        for rid, news in (("good", {"events": []}), ("bad", 5), ("told", {"failed": "planted"})):
            meta_info: dict[str, Any] = {"id": rid}
            state = SimpleNamespace()
            update_request_meta_info(lambda *_: None, manager, meta_info, state, {"multiverse": [[news]]}, 0, None)
            yield {"meta_info": meta_info}

    async def read(count: int) -> list[Any]:
        found = []
        async for output in generate_request(outputs, manager, SimpleNamespace(sampling_params={})):
            found.append(output)
            if len(found) == count:
                break
        return found

    assert len(asyncio.run(read(1))) == 1
    with pytest.raises(RuntimeError, match="multiverse"):
        asyncio.run(read(2))
    assert aborted == ["bad"]
