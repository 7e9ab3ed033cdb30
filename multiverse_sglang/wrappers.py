"""What is put around SGLang's functions: each only hands over to the conductor of its scheduler. Rows of `hooks.py`."""

from __future__ import annotations

from typing import Any

import torch
from sglang.srt.mem_cache.allocation import get_last_loc_torch
from sglang.srt.plugins.hook_registry import HookType

from multiverse.activation import take_flag
from multiverse.errors import UnsupportedHostError
from multiverse.options import show_flags, take_flags
from multiverse_sglang.attention.groups import GROUPS, groups
from multiverse_sglang.conductor import Conductor
from multiverse_sglang.front import generate_request, update_request_meta_info
from multiverse_sglang.hooks import (
    ALLOCATION,
    ARGUMENTS,
    BATCH,
    CHECKER,
    FORWARD,
    FRONT,
    OBSERVER,
    REQUEST,
    RUNNER,
    SAMPLING,
    SCHEDULER,
    STREAMER,
    install_api,
)
from multiverse_sglang.memory import by_age, tree_of
from multiverse_sglang.penalties import complete, generated_before
from multiverse_sglang.refusals import refuse_arguments
from multiverse_sglang.runs import ATTRIBUTE, begin_where_held
from multiverse_sglang.single_pass import PIECES, attending, pieces
from multiverse_sglang.streamer import BlocksStreamer
from multiverse_sglang.tokens import accept
from multiverse_sglang.tree import Member

_CONDUCTOR = "multiverse_conductor"


def prepare_server_args(original: Any, argv: list[str]) -> Any:
    arguments = ["sglang", *argv]
    take_flag(arguments)
    take_flags(arguments)
    install_api()  # this process is going to serve HTTP
    prepared = original(arguments[1:])
    try:
        refuse_arguments(prepared)
    except UnsupportedHostError as refusal:
        raise SystemExit(str(refusal)) from refusal
    return prepared


def add_cli_args(_nothing: None, parser: Any) -> None:
    show_flags(parser)


def scheduler_init(original: Any, scheduler: Any, server_args: Any, *args: Any, **kwargs: Any) -> None:
    refuse_arguments(server_args)
    original(scheduler, server_args, *args, **kwargs)
    conductor = Conductor(scheduler)
    setattr(scheduler, _CONDUCTOR, conductor)
    setattr(scheduler.tree_cache, _CONDUCTOR, conductor)  # what the leak checker can reach


def add_request_to_queue(original: Any, scheduler: Any, req: Any, is_retracted: bool = False) -> None:
    conductor: Conductor = getattr(scheduler, _CONDUCTOR)
    if tree_of(req) is not None:
        conductor.retract(req)
        return
    original(scheduler, req, is_retracted)
    if scheduler.waiting_queue and scheduler.waiting_queue[-1] is req:
        conductor.admit(req)


def get_next_batch_to_run(original: Any, scheduler: Any, running_batch: Any, last_batch: Any) -> Any:
    conductor: Conductor = getattr(scheduler, _CONDUCTOR)
    conductor.make_room()
    with conductor.newcomers_held_back():
        plan = original(scheduler, running_batch=running_batch, last_batch=last_batch)
        if plan.batch_to_run is None and (conductor.trees or conductor.states.kept):

            def again() -> Any:
                return original(scheduler, running_batch=plan.running_batch, last_batch=None)

            plan = conductor.unblock(again, plan)
    return plan


def process_batch_result(original: Any, scheduler: Any, batch: Any, result: Any) -> None:
    original(scheduler, batch, result)
    conductor: Conductor = getattr(scheduler, _CONDUCTOR)
    conductor.settle(batch)


def update_finish_state(original: Any, req: Any, new_accepted_len: int = 1) -> None:
    member: Member | None = getattr(req, ATTRIBUTE, None)
    if member is None or new_accepted_len != 1 or req.finished():
        original(req, new_accepted_len)
    else:
        accept(original, req, member)


def init_next_round_input(original: Any, req: Any, tree_cache: Any = None, cow_mamba: Any = None) -> None:
    member: Member | None = getattr(req, ATTRIBUTE, None)
    if member is None or member.held is None or req.kv.holds_kv or tree_cache is None:
        original(req, tree_cache, cow_mamba)
    else:
        begin_where_held(tree_cache, req, member.held)


def prefix_kv_indices(original: Any, batch: Any, req: Any) -> torch.Tensor:
    member: Member | None = getattr(req, ATTRIBUTE, None)
    if member is None or member.held is None or req.kv.holds_kv:
        return original(batch, req)
    conductor: Conductor = getattr(batch.tree_cache, _CONDUCTOR)
    conductor.pool.part(member.held)
    req.kv.cache_protected_len = member.held.own
    return member.held.slots


def get_last_loc(original: Any, req_to_token: Any, req_pool_indices_tensor: Any, prefix_lens_tensor: Any) -> Any:
    on_cpu = req_to_token.device.type == "cpu"
    return (get_last_loc_torch if on_cpu else original)(req_to_token, req_pool_indices_tensor, prefix_lens_tensor)


def forward_batch_init_new(forward: Any, *args: Any, **kwargs: Any) -> None:
    """Copy the pages that branches share in part; add each strand's position delta to what came of lengths."""
    batch = kwargs["batch"] if "batch" in kwargs else next(arg for arg in args if hasattr(arg, "reqs"))
    conductor: Conductor | None = getattr(batch.tree_cache, _CONDUCTOR, None)
    if conductor is not None:
        conductor.pool.copy()
    if forward.forward_mode.is_extend():
        found = pieces(batch)
        deltas, lengths = [piece.shift for piece in found], [piece.length for piece in found]
        if any(piece.intervals is not None for piece in found):
            setattr(forward, PIECES, found)
    else:
        members = [getattr(req, ATTRIBUTE, None) for req in batch.reqs or ()]
        deltas, lengths = [0 if member is None else member.delta for member in members], [1] * len(members)
        setattr(forward, GROUPS, groups(batch.reqs or ()))
    if not any(deltas):
        return
    offsets = torch.tensor(deltas, dtype=forward.positions.dtype).repeat_interleave(torch.tensor(lengths))
    positions = forward.positions.clone()
    positions[: len(offsets)] += offsets.to(positions.device, non_blocking=True)
    forward.positions = positions


def model_forward(original: Any, runner: Any, forward_batch: Any, *args: Any, **kwargs: Any) -> Any:
    if hasattr(runner.attn_backend, GROUPS):  # a forward works on a copy of its batch
        setattr(runner.attn_backend, GROUPS, getattr(forward_batch, GROUPS, ()))
    found = getattr(forward_batch, PIECES, None)
    if found is None:
        return original(runner, forward_batch, *args, **kwargs)
    with attending(runner, found):
        return original(runner, forward_batch, *args, **kwargs)


def stream_output(original: Any, streamer: Any, reqs: Any, return_logprob: bool, skip_req: Any = None) -> None:
    """Runs have no client; what they computed is shown in document order by `outputs.show`."""
    original(streamer, [req for req in reqs if tree_of(req) is None], return_logprob, skip_req)


def is_fully_idle(idle: bool, scheduler: Any, *_: Any, **__: Any) -> bool:
    return idle and not getattr(scheduler, _CONDUCTOR).trees


def abort_request(original: Any, scheduler: Any, recv_req: Any) -> None:
    getattr(scheduler, _CONDUCTOR).abort(recv_req)
    original(scheduler, recv_req)


def flush_cache(scheduler: Any, *_: Any, **__: Any) -> None:
    getattr(scheduler, _CONDUCTOR).states.drop(None)


def session_held_tokens(tokens: int, observer: Any) -> int:
    """Slots that SGLang's leak checks know to be held between requests: also those of states of programs."""
    conductor: Conductor | None = getattr(observer.tree_cache, _CONDUCTOR, None)
    return tokens if conductor is None else tokens + conductor.states.tokens


def get_decode_retraction_order(order: list[int], reqs: Any) -> list[int]:
    return by_age(reqs, order)


def get_total_uncached_sizes(sizes: tuple[int, int], checker: Any) -> tuple[int, int]:
    """SGLang's leak check between steps counts what requests in batches hold; strands hold the rest."""
    full, sliding = sizes
    return full + getattr(checker.tree_cache, _CONDUCTOR).held_tokens(), sliding


def get_output_streamer_class(streamer: Any, scheduler: Any) -> Any:  # noqa: ARG001
    return BlocksStreamer


def from_schedule_batch(info: Any, _kind: Any, batch: Any, *_: Any, **__: Any) -> None:
    """Let penalties count what the strands of a new batch have generated in runs before."""
    if info.penalizer_orchestrator.is_required:
        members = [getattr(req, ATTRIBUTE, None) for req in batch.reqs]
        late = batch.enable_overlap
        complete(info.penalizer_orchestrator, [generated_before(member, late) for member in members])


WRAPPERS = {
    f"{ARGUMENTS}:prepare_server_args": (HookType.AROUND, prepare_server_args),
    f"{ARGUMENTS}:ServerArgs.add_cli_args": (HookType.AFTER, add_cli_args),
    f"{SCHEDULER}.__init__": (HookType.AROUND, scheduler_init),
    f"{SCHEDULER}.get_output_streamer_class": (HookType.AFTER, get_output_streamer_class),
    f"{SCHEDULER}._add_request_to_queue": (HookType.AROUND, add_request_to_queue),
    f"{SCHEDULER}.get_next_batch_to_run": (HookType.AROUND, get_next_batch_to_run),
    f"{SCHEDULER}.process_batch_result": (HookType.AROUND, process_batch_result),
    f"{SCHEDULER}.is_fully_idle": (HookType.AFTER, is_fully_idle),
    f"{SCHEDULER}.abort_request": (HookType.AROUND, abort_request),
    f"{REQUEST}.update_finish_state": (HookType.AROUND, update_finish_state),
    f"{REQUEST}.init_next_round_input": (HookType.AROUND, init_next_round_input),
    f"{BATCH}._get_decode_retraction_order": (HookType.AFTER, get_decode_retraction_order),
    f"{ALLOCATION}:_prefix_kv_indices": (HookType.AROUND, prefix_kv_indices),
    f"{ALLOCATION}:get_last_loc": (HookType.AROUND, get_last_loc),
    f"{FORWARD}.init_new": (HookType.AFTER, forward_batch_init_new),
    f"{RUNNER}.forward": (HookType.AROUND, model_forward),
    f"{SAMPLING}.from_schedule_batch": (HookType.AFTER, from_schedule_batch),
    f"{FRONT}.update_request_meta_info": (HookType.AROUND, update_request_meta_info),
    f"{FRONT}.generate_request": (HookType.AROUND, generate_request),
    f"{STREAMER}.stream_output": (HookType.AROUND, stream_output),
    f"{SCHEDULER}.flush_cache": (HookType.BEFORE, flush_cache),
    f"{OBSERVER}.session_held_tokens": (HookType.AFTER, session_held_tokens),
    f"{CHECKER}._get_total_uncached_sizes": (HookType.AFTER, get_total_uncached_sizes),
}
"""By target of the table: how SGLang's registry has to apply what."""
