"""What is put around the functions of SGLang that prepare forwards and run them. Rows of `hooks.py`."""

from __future__ import annotations

import functools
from typing import Any

import torch
from sglang.srt.mem_cache.allocation import get_last_loc_torch

from multiverse_sglang.attention.positions import prepare_forward
from multiverse_sglang.channels import CONDUCTOR, FAIL, GROUPS, SEGMENTS
from multiverse_sglang.scheduler.conductor import Conductor
from multiverse_sglang.scheduler.penalties import complete_penalties
from multiverse_sglang.scheduler.single_pass import attending
from multiverse_sglang.scheduler.tree import member_of


def prefix_kv_indices(original: Any, batch: Any, req: Any) -> torch.Tensor:
    member = member_of(req)
    if member is None or member.held is None or req.kv.holds_kv:
        return original(batch, req)
    conductor: Conductor = getattr(batch.tree_cache, CONDUCTOR)
    conductor.guard.run(member.tree, conductor.pool.part, member.held, otherwise=None)
    req.kv.cache_protected_len = conductor.pool.whole(member.held.own)
    return member.held.slots


def get_last_loc(original: Any, req_to_token: Any, req_pool_indices_tensor: Any, prefix_lens_tensor: Any) -> Any:
    on_cpu = req_to_token.device.type == "cpu"
    return (get_last_loc_torch if on_cpu else original)(req_to_token, req_pool_indices_tensor, prefix_lens_tensor)


def forward_batch_init_new(forward: Any, *args: Any, **kwargs: Any) -> None:
    """Copy the pages that branches share in part; add each strand's position delta to what came of lengths."""
    batch = kwargs["batch"] if "batch" in kwargs else next(arg for arg in args if hasattr(arg, "reqs"))
    conductor: Conductor | None = getattr(batch.tree_cache, CONDUCTOR, None)
    if conductor is not None:
        setattr(forward, FAIL, functools.partial(conductor.fail_batch, batch.reqs))
        conductor.contain_batch(batch.reqs, prepare_forward, conductor.pool, batch, forward)


def model_forward(original: Any, runner: Any, forward_batch: Any, *args: Any, **kwargs: Any) -> Any:
    if hasattr(runner.attn_backend, GROUPS):  # a forward works on a copy of its batch
        setattr(runner.attn_backend, GROUPS, getattr(forward_batch, GROUPS, ()))
    found = getattr(forward_batch, SEGMENTS, None)
    if found is None:
        return original(runner, forward_batch, *args, **kwargs)
    with attending(runner, found, getattr(forward_batch, FAIL)):
        return original(runner, forward_batch, *args, **kwargs)


def from_schedule_batch(info: Any, _kind: Any, batch: Any, *_: Any, **__: Any) -> None:
    """Let penalties count what the strands of a new batch have generated in runs before."""
    conductor: Conductor | None = getattr(batch.tree_cache, CONDUCTOR, None)
    if conductor is not None and info.penalizer_orchestrator.is_required:
        conductor.contain_batch(batch.reqs, complete_penalties, info.penalizer_orchestrator, batch)
