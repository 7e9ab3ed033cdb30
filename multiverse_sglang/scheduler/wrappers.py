"""What is put around SGLang's functions: each only hands over to the conductor of its scheduler. Rows of `hooks.py`."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sglang.srt.runtime_context import get_serving

from multiverse.serving.containment import Guard
from multiverse_sglang.channels import CONDUCTOR
from multiverse_sglang.refusals import refuse_arguments
from multiverse_sglang.scheduler.conductor import Conductor
from multiverse_sglang.scheduler.memory_pressure import ShortageNoter, release
from multiverse_sglang.scheduler.ranks import check_ranks
from multiverse_sglang.scheduler.runs import begin_where_held, is_run, orphan
from multiverse_sglang.scheduler.streamer import BlocksStreamer
from multiverse_sglang.scheduler.tokens import accept
from multiverse_sglang.scheduler.tree import member_of
from multiverse_sglang.scheduler.waiting_queue import by_seniority, tree_of

_aside = Guard(lambda _: None, str, logging.getLogger("sglang.multiverse")).aside
"""For what is about no tree: SGLang goes on with what it has itself."""

_UNCHANGED: AbstractContextManager[None] = nullcontext()


def of(scheduler: Any) -> Conductor:
    """The conductor of `scheduler`."""
    found: Conductor = getattr(scheduler, CONDUCTOR)
    return found


def scheduler_init(original: Any, scheduler: Any, server_args: Any, *args: Any, **kwargs: Any) -> None:
    refuse_arguments(server_args)
    original(scheduler, server_args, *args, **kwargs)
    check_ranks()
    conductor = Conductor(scheduler)
    setattr(scheduler, CONDUCTOR, conductor)
    setattr(scheduler.tree_cache, CONDUCTOR, conductor)  # what the leak checker can reach


def add_request_to_queue(original: Any, scheduler: Any, req: Any, is_retracted: bool = False) -> None:
    tree = tree_of(req)
    if tree is not None:
        of(scheduler).guard.run(tree, of(scheduler).retract, req, otherwise=None)
        return
    original(scheduler, req, is_retracted)
    if scheduler.waiting_queue and scheduler.waiting_queue[-1] is req:
        of(scheduler).admit(req)


def abort_on_queued_limit(original: Any, scheduler: Any, recv_req: Any) -> bool:
    conductor = of(scheduler)
    with _aside(conductor.queue.as_clients_see_it, conductor.forget, otherwise=_UNCHANGED):
        return bool(original(scheduler, recv_req))


def get_prefill_adder_class(adder: Any, scheduler: Any) -> Any:  # noqa: ARG001
    return ShortageNoter


def get_next_batch_to_run(original: Any, scheduler: Any, running_batch: Any, last_batch: Any) -> Any:
    conductor = of(scheduler)
    conductor.contain(conductor.before_step, otherwise=None)
    with _aside(conductor.newcomers_held_back, otherwise=_UNCHANGED):
        plan = original(scheduler, running_batch=running_batch, last_batch=last_batch)
        if plan.batch_to_run is None and (conductor.trees or conductor.states.kept):

            def again() -> Any:
                return original(scheduler, running_batch=plan.running_batch, last_batch=None)

            plan = conductor.contain(conductor.unblock, again, plan, otherwise=plan)
    return plan


def process_batch_result(original: Any, scheduler: Any, batch: Any, result: Any) -> None:
    original(scheduler, batch, result)
    of(scheduler).contain(of(scheduler).settle, batch, otherwise=None)


def update_finish_state(original: Any, req: Any, new_accepted_len: int = 1) -> None:
    member = member_of(req)
    if member is None or new_accepted_len != 1 or req.finished():
        original(req, new_accepted_len)
        return
    try:
        accept(original, req, member)
    except Exception as error:
        member.tree.guard.caught(member.tree, error)


def release_req(*_: Any, req: Any, **__: Any) -> None:
    tree = tree_of(req)
    if tree is not None:
        tree.guard.run(tree, release, req, otherwise=None)


def init_next_round_input(original: Any, req: Any, tree_cache: Any = None, cow_mamba: Any = None) -> None:
    member = member_of(req)
    if member is None or member.held is None or req.kv.holds_kv or tree_cache is None:
        original(req, tree_cache, cow_mamba)
    elif not member.tree.guard.run(member.tree, begin_where_held, tree_cache, req, member.held, otherwise=False):
        orphan(req)
        original(req, tree_cache, cow_mamba)


def stream_output(original: Any, streamer: Any, reqs: Any, return_logprob: bool, skip_req: Any = None) -> None:
    """Runs have no client; what they computed is shown in document order by `outputs.show`."""
    original(streamer, [req for req in reqs if not is_run(req)], return_logprob, skip_req)


def is_fully_idle(idle: bool, scheduler: Any, for_health_check: bool = False, ignore_waiting: bool = False) -> bool:
    """Parked strands are not idleness. They wait, though: who asks whether anything runs is told what SGLang knows."""
    del for_health_check
    return idle and (ignore_waiting or not of(scheduler).trees)


def on_idle(_nothing: None, scheduler: Any) -> None:
    conductor = of(scheduler)
    if scheduler.is_fully_idle():
        conductor.guard.aside(conductor.rest, otherwise=None)


def abort_request(original: Any, scheduler: Any, recv_req: Any) -> None:
    of(scheduler).contain(of(scheduler).abort, recv_req, otherwise=None)
    original(scheduler, recv_req)


def pause_generation(original: Any, scheduler: Any, recv_req: Any) -> None:
    original(scheduler, recv_req)
    if recv_req.mode == "retract":
        of(scheduler).contain(of(scheduler).give_up_kv, otherwise=None)


def flush_cache(original: Any, scheduler: Any, *args: Any, **kwargs: Any) -> bool:
    of(scheduler).contain(of(scheduler).before_flush, otherwise=None)
    return bool(original(scheduler, *args, **kwargs))


def record_weight_version_change(original: Any, scheduler: Any, new_version: Any) -> None:
    old_version = get_serving().weight_version
    original(scheduler, new_version)
    if get_serving().weight_version != old_version:
        of(scheduler).contain(of(scheduler).note_version, old_version, otherwise=None)


def session_held_tokens(tokens: int, observer: Any) -> int:
    """Slots that SGLang's leak checks know to be held between requests: also those of states of programs."""
    conductor: Conductor | None = getattr(observer.tree_cache, CONDUCTOR, None)
    return tokens if conductor is None else tokens + _aside(conductor.kept_tokens, otherwise=0)


def get_decode_retraction_order(order: list[int], reqs: Any) -> list[int]:
    return _aside(by_seniority, reqs, order, otherwise=order)


def get_total_uncached_sizes(sizes: tuple[int, int], checker: Any) -> tuple[int, int]:
    """SGLang's leak check between steps counts what requests in batches hold; strands hold the rest."""
    full, sliding = sizes
    conductor: Conductor = getattr(checker.tree_cache, CONDUCTOR)
    return full + _aside(conductor.held_tokens, otherwise=0), sliding


def get_output_streamer_class(streamer: Any, scheduler: Any) -> Any:  # noqa: ARG001
    return BlocksStreamer
