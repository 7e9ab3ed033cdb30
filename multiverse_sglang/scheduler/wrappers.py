"""What is put around SGLang's functions: each only hands over to the conductor of its scheduler. Rows of `hooks.py`."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from sglang.srt.runtime_context import get_serving

from multiverse.serving.containment import Guard
from multiverse.serving.hooks import offered
from multiverse_sglang.channels import CONDUCTOR
from multiverse_sglang.hooks import HELD_TOKENS
from multiverse_sglang.host import (
    Batch,
    HasRadixCache,
    Message,
    Plan,
    RadixCache,
    Request,
    Result,
    Scheduler,
    ServerArgs,
)
from multiverse_sglang.refusals import refuse_arguments
from multiverse_sglang.registry import Original
from multiverse_sglang.scheduler.conductor import Conductor, conductor_of, find_conductor
from multiverse_sglang.scheduler.memory_pressure import ShortageNoter
from multiverse_sglang.scheduler.preemption import release_retracted
from multiverse_sglang.scheduler.ranks import check_ranks
from multiverse_sglang.scheduler.rehearsal import rehearse
from multiverse_sglang.scheduler.requests import is_run
from multiverse_sglang.scheduler.runs import begin_behind, orphan
from multiverse_sglang.scheduler.streamer import BlocksStreamer
from multiverse_sglang.scheduler.tree import member_of
from multiverse_sglang.scheduler.waiting_queue import by_seniority, tree_of

_aside = Guard(lambda _: None, str, logging.getLogger("sglang.multiverse")).aside
"""For what is about no tree: SGLang goes on with what it has itself."""

_UNCHANGED: AbstractContextManager[None] = nullcontext()


def scheduler_init(
    original: Original, scheduler: Scheduler, server_args: ServerArgs, *args: object, **kwargs: object
) -> None:
    refuse_arguments(server_args)
    original(scheduler, server_args, *args, **kwargs)
    check_ranks()
    conductor = Conductor(scheduler)
    setattr(scheduler, CONDUCTOR, conductor)
    setattr(scheduler.tree_cache, CONDUCTOR, conductor)  # what the leak checker can reach
    if offered(HELD_TOKENS):  # it asks by itself
        held = (conductor.books.parked_slots, conductor.books.retained_slots)
        scheduler.pool_stats_observer.held_token_counters.extend(partial(_aside, count, otherwise=0) for count in held)
    rehearse(scheduler)
    conductor.start_counting()


def add_request_to_queue(original: Original, scheduler: Scheduler, req: Request, is_retracted: bool = False) -> None:
    """A new request is looked at once SGLang has queued it; it may be refused, or taken out and started as runs.

    A run comes here only if SGLang has retracted it. It is not queued: its tree gives up all KV before the next step,
    and makes new runs when it is readmitted.
    """
    conductor, tree = conductor_of(scheduler), tree_of(req)
    if tree is not None:
        tree.guard.run(tree, conductor.preemption.note_retracted, req, otherwise=None)
        return
    original(scheduler, req, is_retracted)
    if scheduler.waiting_queue and scheduler.waiting_queue[-1] is req:
        conductor.admission.admit(req)
        if conductor.paces is not None:
            _aside(conductor.paces.admit, req, otherwise=None)


def abort_on_queued_limit(original: Original, scheduler: Scheduler, recv_req: Request) -> bool:
    conductor = conductor_of(scheduler)
    with _aside(conductor.queue.as_clients_see_it, conductor.containment.release, otherwise=_UNCHANGED):
        return bool(original(scheduler, recv_req))


def get_prefill_adder_class(adder: type, scheduler: Scheduler) -> type:  # noqa: ARG001
    return ShortageNoter


def get_next_batch_to_run(
    original: Original, scheduler: Scheduler, running_batch: Batch, last_batch: Batch | None
) -> Plan:
    """SGLang's plan of the next step, `batch_to_run` of which may be `None`.

    Before it, branches are held and released, which may make the running batch another one; slots are freed for what
    runs, and strands are put first. Meanwhile requests that came after preempted trees are out of its sight. If it
    finds no room for anything, slots are freed until it does, and it plans again.
    What raises here ends all trees (I7), and SGLang's plan stands.
    """
    assert running_batch is scheduler.running_batch
    conductor = conductor_of(scheduler)
    containment, memory = conductor.containment, conductor.memory
    containment.contain(conductor.before_step, otherwise=None)
    with _aside(memory.defer_new_requests, otherwise=_UNCHANGED):
        plan: Plan = original(scheduler, running_batch=scheduler.running_batch, last_batch=last_batch)
        if plan.batch_to_run is None and (conductor.trees or conductor.retained):
            running = plan.running_batch

            def again() -> Plan:
                return original(scheduler, running_batch=running, last_batch=None)

            plan = containment.contain(memory.resolve_stall, again, plan, otherwise=plan)
    return plan


def get_num_allocatable_reqs(
    original: Original, scheduler: Scheduler, running_bs: int, *args: object, **kwargs: object
) -> int:
    return int(original(scheduler, running_bs + len(conductor_of(scheduler).trees.held()), *args, **kwargs))


def process_batch_result(original: Original, scheduler: Scheduler, batch: Batch, result: Result) -> None:
    conductor = conductor_of(scheduler)
    _aside(conductor.watch, batch, result, otherwise=None)
    original(scheduler, batch, result)
    conductor.containment.contain(conductor.process_results, otherwise=None)


def release_req(*_: object, req: Request, **__: object) -> None:
    tree = tree_of(req)
    if tree is not None:
        tree.guard.run(tree, release_retracted, req, otherwise=None)


def init_next_round_input(
    original: Original, req: Request, tree_cache: RadixCache | None = None, cow_mamba: bool | None = None
) -> None:
    member = member_of(req)
    if member is None or member.slots is None or req.kv.holds_kv or tree_cache is None:
        original(req, tree_cache, cow_mamba)
    elif not member.tree.guard.run(member.tree, begin_behind, tree_cache, req, member.slots, otherwise=False):
        orphan(req)
        original(req, tree_cache, cow_mamba)


def stream_output(
    original: Original,
    streamer: HasRadixCache,
    reqs: list[Request],
    return_logprob: bool,
    skip_req: Request | None = None,
) -> None:
    """Runs have no client; what they computed is shown in document order by `outputs.show`."""
    if conductor_of(streamer.tree_cache).trees:  # else what is left of runs has had its output
        reqs = [req for req in reqs if not is_run(req)]
    original(streamer, reqs, return_logprob, skip_req)


def is_fully_idle(
    idle: bool, scheduler: Scheduler, for_health_check: bool = False, ignore_waiting: bool = False
) -> bool:
    """Parked strands are not idleness. They wait, though: who asks whether anything runs is told what SGLang knows.
    Held branches do run: they have rows, and go on as soon as they may."""
    del for_health_check
    trees = conductor_of(scheduler).trees
    return idle and (not trees.held() if ignore_waiting else not trees)


def on_idle(_nothing: None, scheduler: Scheduler) -> None:
    if scheduler.is_fully_idle():
        _aside(conductor_of(scheduler).rest, otherwise=None)


def abort_request(original: Original, scheduler: Scheduler, recv_req: Message) -> None:
    conductor = conductor_of(scheduler)
    conductor.containment.contain(conductor.abort, recv_req, otherwise=None)
    original(scheduler, recv_req)


def pause_generation(original: Original, scheduler: Scheduler, recv_req: Message) -> None:
    original(scheduler, recv_req)
    if recv_req.mode == "retract":
        conductor = conductor_of(scheduler)
        conductor.containment.contain(conductor.drop_kv, otherwise=None)


def flush_cache(original: Original, scheduler: Scheduler, *args: object, **kwargs: object) -> bool:
    conductor = conductor_of(scheduler)
    conductor.containment.contain(conductor.before_flush, otherwise=None)
    return bool(original(scheduler, *args, **kwargs))


def record_weight_version_change(original: Original, scheduler: Scheduler, new_version: str) -> None:
    old_version, conductor = get_serving().weight_version, conductor_of(scheduler)
    original(scheduler, new_version)
    if get_serving().weight_version != old_version:
        conductor.containment.contain(conductor.note_version, old_version, otherwise=None)


def session_held_tokens(tokens: int, observer: HasRadixCache) -> int:
    """Slots that SGLang's leak checks know to be held between requests: also those of states of programs."""
    conductor = find_conductor(observer.tree_cache)
    return tokens if conductor is None else tokens + _aside(conductor.books.retained_slots, otherwise=0)


def get_decode_retraction_order(order: list[int], reqs: list[Request]) -> list[int]:
    return _aside(by_seniority, reqs, order, otherwise=order)


def retract_decode(original: Original, batch: Batch) -> tuple[list[Request], float, list[Request]]:
    """Who was retracted, SGLang's new estimate, and who is to be aborted."""
    ends = {id(req): req.to_finish for req in batch.reqs}
    retracted, estimate, aborted = original(batch)
    nobody: list[Request] = []
    waits = _aside(conductor_of(batch.tree_cache).memory.let_wait, aborted, otherwise=nobody)
    for req in waits:
        req.to_finish = ends[id(req)]  # if its client has gone, it still has
    return [*retracted, *waits], estimate, [req for req in aborted if req not in waits]


def get_total_uncached_sizes(sizes: tuple[int, int], checker: HasRadixCache) -> tuple[int, int]:
    """SGLang's leak check between steps counts what requests in batches hold; strands hold the rest."""
    full, sliding = sizes
    return full + _aside(conductor_of(checker.tree_cache).books.parked_slots, otherwise=0), sliding


def get_output_streamer_class(streamer: type, scheduler: Scheduler) -> type:  # noqa: ARG001
    return BlocksStreamer
