"""What operators of vLLM do while trees run: pause, reset, sleep, new weights. No KV survives what clears the cache
(SEMANTICS section 8), and nothing else changes for clients."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any
from unittest import mock

import pytest

pytest.importorskip("vllm", reason="these are vLLM's own controls")

from vllm import SamplingParams
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.request import Request, RequestStatus
from vllm_host import VLLMHost

from multiverse.models.task import generate
from multiverse.models.tokenizer import turn

KINDS = ("nested", "flat", "chain", "single", "nested", "flat")


@pytest.fixture(scope="module")
def prompts(tiny: tuple[Any, Any]) -> list[list[int]]:
    rng = Random(15)
    return [tiny[1].encode(turn(generate(rng, kind, held_out=True))) for kind in KINDS]


def pause_and_resume(host: VLLMHost) -> None:
    host.core.pause_scheduler("keep")
    host.core.resume_scheduler()


def reset(host: VLLMHost) -> None:
    assert host.core.reset_prefix_cache(reset_running_requests=True)


def sleep_and_wake(host: VLLMHost) -> None:
    host.core.sleep(1, "keep")
    assert host.core.wake_up()


def rest(host: VLLMHost) -> None:
    """A pause during which the engine goes on stepping, as it does for whatever else it has to tell its workers."""
    host.core.pause_scheduler("keep")
    for _ in range(3):
        host.step()
    assert used(host) == 0
    host.core.resume_scheduler()


def release_memory(host: VLLMHost) -> None:
    """vLLM demands that the pause is complete: its workers know of everything that ended."""
    host.core.pause_scheduler("keep")
    while host.scheduler.has_requests() or host.core.batch_queue:
        host.step()
    with mock.patch.object(host.core.model_executor, "discard"):  # which vLLM has on GPUs only
        host.core.release_kv_cache_memory()
    host.core.resume_scheduler()


def used(host: VLLMHost) -> int:
    return host.leftovers()["blocks"]


def finish(host: VLLMHost, seen: dict[str, list[int]], each: Callable[[int], Any] = abs) -> None:
    """Step until nothing is left; `each` is called with the number of every step before it."""
    for step in range(4000):
        each(step)
        for request, tokens in host.step().items():
            seen[request] += tokens
        if not host.leftovers()["requests"]:
            return
    raise AssertionError(f"not finished: {host.leftovers()}")


def begin(host: VLLMHost, prompts: list[list[int]], **sampling: Any) -> dict[str, list[int]]:
    return {host.start(prompt, **sampling): [] for prompt in prompts}


def advance(host: VLLMHost, seen: dict[str, list[int]], steps: int) -> None:
    for _ in range(steps):
        for request, tokens in host.step().items():
            seen[request] += tokens


def members(host: VLLMHost) -> list[Any]:
    return list(host.scheduler.trees.members.values())


@pytest.mark.parametrize("memory", ["host", "scarce_host"])
def test_whatever_clears_the_cache_at_any_moment_changes_no_answer(
    request: pytest.FixtureRequest, memory: str, host: VLLMHost, prompts: list[list[int]]
) -> None:
    one: VLLMHost = request.getfixturevalue(memory)
    expected = [host.generate([prompt])[0].ids for prompt in prompts]
    actions = (pause_and_resume, reset, sleep_and_wake, rest, release_memory)
    before = one.counters()["replays"]

    def clear(step: int) -> None:
        if step % 11 == 5 and step < 200:
            actions[step // 11 % len(actions)](one)
            assert used(one) == 0
            assert one.integrity() == []

    seen = begin(one, prompts)
    finish(one, seen, clear)
    assert list(seen.values()) == expected
    assert one.counters()["replays"] > before + 20
    assert not any(one.leftovers().values()), one.leftovers()


def test_a_reset_that_spares_who_runs_is_refused_and_changes_nothing(host: VLLMHost, prompts: list[list[int]]) -> None:
    expected = [host.generate([prompt])[0].ids for prompt in prompts]
    before = host.counters()["replays"]

    def spare(step: int) -> None:
        if step % 20 == 10:
            assert host.core.reset_prefix_cache() is (used(host) == 0)

    seen = begin(host, prompts)
    finish(host, seen, spare)
    assert list(seen.values()) == expected
    assert host.counters()["replays"] == before


def test_spliced_kv_in_the_cache_is_dropped_with_the_rest(host: VLLMHost, prompts: list[list[int]]) -> None:
    """The next turn of a conversation finds the last one's KV; after a reset it does not, and says the same."""
    (answer,) = host.generate(prompts[:1])
    follow_up = prompts[0] + answer.ids
    sizes = []
    for act in (lambda: None, lambda: reset(host)):
        host.generate(prompts[:1])
        before = host.counters()["cached_tokens"]
        act()
        host.generate([follow_up], max_tokens=4)
        sizes.append(host.counters()["cached_tokens"] - before)
    assert sizes[0] > 0
    assert sizes[1] == 0


def test_before_a_pause_that_waits_what_has_begun_ends_and_what_comes_waits(
    host: VLLMHost, prompts: list[list[int]]
) -> None:
    expected = [host.generate([prompt])[0].ids for prompt in prompts]
    follow_up = prompts[0] + expected[0] + prompts[1]
    (after,) = host.generate([follow_up])
    seen = begin(host, prompts[:4])
    advance(host, seen, 30)
    host.scheduler.set_pause_state(PauseState.PAUSED_NEW)
    late = begin(host, [*prompts[4:], follow_up])
    for _ in range(2000):
        if not host.scheduler.has_requests() and not host.core.batch_queue:
            break
        advance(host, seen | late, 1)
    assert list(seen.values()) == expected[:4]
    assert not any(late.values())
    assert used(host) == 0
    host.core._finish_pause(True)
    host.core.resume_scheduler()
    finish(host, late)
    assert list(late.values()) == [*expected[4:], after.ids]


def test_a_pause_that_aborts_takes_every_tree_and_tells_of_requests_only(
    host: VLLMHost, prompts: list[list[int]]
) -> None:
    seen = begin(host, prompts)
    advance(host, seen, 40)
    known = {member.tree.root.request for member in members(host)}
    known |= {deferred.request for deferred in host.scheduler.trees.deferred.values()}
    assert len(members(host)) > len(known) > 3
    assert set(host.scheduler.finish_requests(None, RequestStatus.FINISHED_ABORTED)) == known
    assert not any(host.leftovers().values()), host.leftovers()
    for request in seen:
        host.abort(request)
    advance(host, seen, 3)


def session_chunk(host: VLLMHost, tokens: list[int], resumable: bool) -> Request:
    params = SamplingParams(temperature=0, max_tokens=4)
    params.update_from_generation_config({}, None)
    hasher = host.core.request_block_hasher
    return Request("session", tokens, params, None, resumable=resumable, block_hasher=hasher)


def test_a_session_of_streaming_input_is_left_to_vllm_and_the_engine_rests_behind_it(
    host: VLLMHost, prompts: list[list[int]]
) -> None:
    scheduler = host.scheduler
    scheduler.add_request(session_chunk(host, prompts[0], resumable=True))
    for _ in range(20):
        host.core.step_fn()
    assert scheduler.requests["session"].status == RequestStatus.WAITING_FOR_STREAMING_REQ
    scheduler.add_request(session_chunk(host, [0], resumable=False))
    for _ in range(4):
        host.core.step_fn()
    assert not scheduler.has_requests()
    assert not any(host.leftovers().values()), host.leftovers()


def test_what_vllm_preempts_itself_is_counted_as_released_and_computed_again(
    host: VLLMHost, prompts: list[list[int]]
) -> None:
    """Of a tree alone in memory: all blocks in use were its own, and every token in them is computed again."""
    (expected,) = host.generate(prompts[:1])
    host.core.reset_prefix_cache()
    seen = begin(host, prompts[:1], multiverse={"return_tree": True})
    while sum(member.strand.parent is not None for member in members(host)) < 2:
        advance(host, seen, 1)
    advance(host, seen, 6)
    scheduler, (tree,) = host.scheduler, {id(member.tree): member.tree for member in members(host)}.values()
    held = used(host)
    own = {}
    for member in tree.members.values():
        parent = member.strand.parent
        own[member.strand.key] = member.request.num_computed_tokens - (
            tree.members[parent.key].request.num_tokens if parent is not None else 0
        )
    victim = scheduler.running.pop()
    scheduler._preempt_request(victim, 0.0)
    scheduler.memory.finish_preemptions()
    assert tree.released_kv == held > 0
    assert tree.recomputed == sum(own.values()) > 0
    assert used(host) == 0
    finish(host, seen)
    assert list(seen.values()) == [expected.ids]


def test_a_tree_that_vllm_preempted_and_memory_took_as_well_begins_again_once(
    host: VLLMHost, prompts: list[list[int]]
) -> None:
    (expected,) = host.generate(prompts[:1])
    seen = begin(host, prompts[:1])
    while sum(member.strand.parent is not None for member in members(host)) < 2:
        advance(host, seen, 1)
    scheduler, tree = host.scheduler, members(host)[0].tree
    scheduler._preempt_request(scheduler.running.pop(), 0.0)
    before = host.counters()["replays"]
    scheduler.memory.preempt(tree)
    finish(host, seen)
    assert list(seen.values()) == [expected.ids]
    assert host.counters()["replays"] == before + 1
