"""What is put around the functions of SGLang that prepare forwards and run them. Rows of `hooks.py`."""

from __future__ import annotations

import functools
from typing import Any

import torch
from sglang.srt.mem_cache.allocation import get_last_loc_torch

from multiverse_sglang.attention.groups import told
from multiverse_sglang.attention.positions import prepare_forward
from multiverse_sglang.attention.segments import SegmentAttention, attending
from multiverse_sglang.channels import FAIL, GROUPS, MASKS, SEGMENTS
from multiverse_sglang.host import Batch, ForwardBatch, ModelRunner, Request
from multiverse_sglang.registry import Original
from multiverse_sglang.scheduler.conductor import conductor_of, find_conductor
from multiverse_sglang.scheduler.penalties import complete_penalties, step_back, step_on
from multiverse_sglang.scheduler.tree import member_of


def prefix_kv_indices(original: Original, batch: Batch, req: Request) -> torch.Tensor:
    """The slots that SGLang writes at the beginning of a request's new row: int64 `[tokens]`.

    For a run, those that its strand has. From here on the run owns what the strand owned of them, the page that it was
    given in place of one that is shared in part included.
    """
    member = member_of(req)
    if member is None or member.slots is None or req.kv.holds_kv:
        return original(batch, req)
    conductor = conductor_of(batch.tree_cache)
    conductor.containment.guard.run(member.tree, conductor.pool.unshare, member.slots, otherwise=None)
    req.kv.cache_protected_len = conductor.pool.round_up(member.slots.owned_from)
    return member.slots.indices


def get_last_loc(
    original: Original,
    req_to_token: torch.Tensor,
    req_pool_indices_tensor: torch.Tensor,
    prefix_lens_tensor: torch.Tensor,
) -> torch.Tensor:
    on_cpu = req_to_token.device.type == "cpu"
    return (get_last_loc_torch if on_cpu else original)(req_to_token, req_pool_indices_tensor, prefix_lens_tensor)


def forward_batch_init_new(forward: ForwardBatch, *args: Any, **kwargs: Any) -> None:
    """Copy the pages that branches share in part; add each strand's position delta to what came of lengths."""
    batch = kwargs["batch"] if "batch" in kwargs else next(arg for arg in args if hasattr(arg, "reqs"))
    conductor = find_conductor(batch.tree_cache)
    if conductor is not None and (conductor.trees or conductor.pool.moves.pending):
        containment = conductor.containment
        setattr(forward, FAIL, functools.partial(containment.fail_batch, batch.reqs))
        containment.contain_batch(batch.reqs, prepare_forward, conductor.pool, batch, forward)


def model_forward(
    original: Original, runner: ModelRunner, forward_batch: ForwardBatch, *args: object, **kwargs: object
) -> object:
    found = getattr(forward_batch, SEGMENTS, None)
    if found is None:  # a forward works on a copy of its batch, so the backend is told
        with told(runner, getattr(forward_batch, GROUPS, ())):
            return original(runner, forward_batch, *args, **kwargs)
    backend, fail = runner.attn_backend, getattr(forward_batch, FAIL)
    masks = getattr(runner, MASKS, None)
    shown = SegmentAttention(backend, found, fail) if masks is None else masks.attention(backend, found, fail)
    with attending(runner, shown):
        return original(runner, forward_batch, *args, **kwargs)


def from_schedule_batch(info: Any, _kind: object, batch: Batch, *_: object, **__: object) -> None:
    """Let penalties count what the strands of a new batch have generated in runs before."""
    conductor = find_conductor(batch.tree_cache)
    if conductor is not None and info.penalizer_orchestrator.is_required:
        containment, penalizers = conductor.containment, info.penalizer_orchestrator
        containment.contain_batch(batch.reqs, complete_penalties, penalizers, batch)


def cumulate_penalty_output_tokens(original: Original, batch: Batch) -> None:
    """Under the overlap scheduler penalties count every token a step late, also of what was held and decodes again."""
    conductor, back = find_conductor(batch.tree_cache), list[tuple[Request, int]]()
    if conductor is not None and batch.enable_overlap:
        conductor.containment.contain_batch(batch.reqs, step_back, batch, back)
    original(batch)
    step_on(back)
