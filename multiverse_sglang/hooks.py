"""Every touch of SGLang's internals, as a table. Checked before anything is changed, and verified afterwards: SGLang
only logs a hook that fails to apply, we refuse to start."""

from __future__ import annotations

import functools
from importlib import metadata
from typing import Any

from multiverse.errors import UnsupportedHostError
from multiverse.hooks import Hook, describe, missing, resolve

VERSIONS = ("0.5.23",)
"""Versions of SGLang that this adapter was tested with."""

ARGUMENTS = "sglang.srt.server_args"
SCHEDULER = "sglang.srt.managers.scheduler:Scheduler"
REQUEST = "sglang.srt.managers.schedule_batch:Req"
BATCH = "sglang.srt.managers.schedule_batch:ScheduleBatch"
ALLOCATION = "sglang.srt.mem_cache.allocation"
FORWARD = "sglang.srt.model_executor.forward_batch_info:ForwardBatch"
STREAMER = "sglang.srt.managers.scheduler_components.output_streamer:SchedulerOutputStreamer"
CHECKER = "sglang.srt.managers.scheduler_components.invariant_checker:SchedulerInvariantChecker"
_CACHE = "sglang.srt.mem_cache.base_prefix_cache"
_ROWS = "sglang.srt.mem_cache.memory_pool:ReqToTokenPool"
_REGISTRY = "sglang.srt.plugins.hook_registry:HookRegistry"

_FORK = "a scheduler API to fork a request and to splice the KV of others"
_PREFIX = "requests that may be queued with a prefix they hold"
_POSITIONS = "a position delta per request"
_TOKEN = "a per-token request callback"
_KEY = "custom radix keys per request"

HOOKS = (
    Hook(f"{ARGUMENTS}:prepare_server_args", ("argv",), True,
         "`sglang serve` copies its command line before plugins are loaded: take our flags out of the copy", "0.5.23",
         "plugins that may add arguments"),
    Hook(f"{SCHEDULER}.__init__", (), True, "give each scheduler its conductor; refuse what can't work", "0.5.23",
         "a plugin hook for schedulers"),
    Hook(f"{SCHEDULER}._add_request_to_queue", ("req", "is_retracted"), True,
         "give each request its controller; replay what was retracted", "0.5.23", _FORK),
    Hook(f"{SCHEDULER}.get_next_batch_to_run", ("running_batch", "last_batch"), True,
         "make room before SGLang retracts; schedule strands first", "0.5.23", _FORK),
    Hook(f"{SCHEDULER}.process_batch_result", ("batch", "result"), True,
         "fork, park and join between steps; answer in document order", "0.5.23", _FORK),
    Hook(f"{SCHEDULER}.is_fully_idle", (), True, "parked strands are not idleness", "0.5.23", _FORK),
    Hook(f"{SCHEDULER}.abort_request", ("recv_req",), True, "an aborted request takes its branches with it", "0.5.23",
         _FORK),
    Hook(f"{REQUEST}.update_finish_state", ("new_accepted_len",), True,
         "hand every sampled token to the controller", "0.5.23", _TOKEN),
    Hook(f"{REQUEST}.init_next_round_input", ("tree_cache", "cow_mamba"), True,
         "let a strand begin with the slots it holds", "0.5.23", _PREFIX),
    Hook(f"{ALLOCATION}:_prefix_kv_indices", ("batch", "req"), True,
         "write the slots a strand holds into its new row", "0.5.23", _PREFIX),
    Hook(f"{BATCH}._get_decode_retraction_order", ("reqs",), True,
         "retract plain requests before strands", "0.5.23", _FORK),
    Hook(f"{FORWARD}.init_new", ("batch", "model_runner"), True, "add the position delta", "0.5.23", _POSITIONS),
    Hook(f"{STREAMER}.stream_output", ("reqs", "return_logprob", "skip_req"), True,
         "strands have no client of their own", "0.5.23", _FORK),
    Hook(f"{CHECKER}._get_total_uncached_sizes", (), True,
         "the leak check between steps has to know what strands hold", "0.5.23", _FORK),
    Hook(REQUEST, ("origin_input_ids", "output_ids", "full_untruncated_fill_ids", "prefix_len", "last_node",
         "last_host_node", "best_match_node", "host_hit_length", "swa_host_hit_length", "mamba_host_hit_length",
         "num_matched_prefix_tokens", "already_computed", "kv", "lock", "finished_reason", "finished_len",
         "finished_output", "skip_radix_cache_insert", "extra_key", "cache_salt", "lora_id", "logprob",
         "logprob_start_len", "cached_tokens", "grammar", "session", "beam_group"), False,
         "make requests for strands, end them, and answer the client", "0.5.23", _FORK),
    Hook("sglang.srt.managers.schedule_batch:ReqKvInfo", ("req_pool_idx", "cache_protected_len", "kv_committed_len",
         "kv_allocated_len"), False, "read what a request holds", "0.5.23", _FORK),
    Hook("sglang.srt.managers.schedule_batch:ReqKvInfo.mark_kv_released", (), False,
         "take it over", "0.5.23", _FORK),
    Hook(SCHEDULER, ("waiting_queue", "running_batch", "last_batch", "chunked_req", "tree_cache",
         "token_to_kv_pool_allocator", "req_to_token_pool", "output_streamer", "invariant_checker"), False,
         "queue requests and see what runs", "0.5.23", _FORK),
    Hook(f"{_ROWS}.free", ("req",), False, "give rows back", "0.5.23", _FORK),
    Hook(_ROWS, ("req_to_token",), False, "read the slots of a row", "0.5.23", _FORK),
    Hook(f"{_CACHE}:BasePrefixCache.lock", ("node",), False, "keep shared slots from being evicted", "0.5.23", _FORK),
    Hook(f"{_CACHE}:BasePrefixCache.unlock", ("lock",), False, "let them go", "0.5.23", _FORK),
    Hook(f"{_CACHE}:BasePrefixCache.root_node_handle", ("extra_key",), False,
         "a prefix that is not in the tree", "0.5.23", _PREFIX),
    Hook(f"{_CACHE}:BasePrefixCache.prefix_device_indices", ("req",), False, "read cached blocks", "0.5.23", _KEY),
    Hook(f"{_CACHE}:InsertParams", ("key", "value", "prev_prefix_len", "inserted_len", "priority"), False,
         "cache blocks under their layout", "0.5.23", _KEY),
    Hook("sglang.srt.mem_cache.common:match_kv_cache", ("req", "tree_cache", "token_ids", "max_prefix_len"), False,
         "find them again", "0.5.23", _KEY),
    Hook("sglang.srt.mem_cache.radix_cache:RadixKey.__init__", ("token_ids", "extra_key", "cache_salt"), False,
         "a key that says how KV was computed", "0.5.23", _KEY),
    Hook(f"{_REGISTRY}.register", ("target", "hook", "hook_type"), False, "apply the wrappers", "0.5.23", "nothing"),
    Hook(f"{_REGISTRY}.apply_hooks", (), False, "apply the wrappers", "0.5.23", "a report of what failed to apply"),
)  # fmt: skip


def check() -> list[str]:
    """What of the table this SGLang does not have; empty if all is there."""
    version = host_version()
    if version in VERSIONS:
        return missing(HOOKS)
    return [f"SGLang {version} was never tested; known are {', '.join(VERSIONS)}", *missing(HOOKS)]


def report() -> dict[str, Any]:
    """For `multiverse check`: the host, its version, what is wrong, and the table. Entry point `multiverse.hosts`."""
    version = host_version()
    return describe("sglang", version, check() if version != "none" else [], HOOKS)


def host_version() -> str:
    """The version of SGLang; `none` if it isn't installed."""
    try:
        return metadata.version("sglang")
    except metadata.PackageNotFoundError:
        return "none"


@functools.cache
def install() -> None:
    """Wrap what the table says, through SGLang's own registry. Idempotent.

    Raises:
        UnsupportedHostError: with everything that does not match, before anything was changed; or with every wrapper
            that SGLang failed to apply.
    """
    if problems := check():
        raise UnsupportedHostError("multiverse can't run in this SGLang:\n  " + "\n  ".join(problems))
    from sglang.srt.plugins.hook_registry import HookRegistry

    from multiverse_sglang.wrappers import WRAPPERS

    targets = [hook.target for hook in HOOKS if hook.wrapped]
    before = {target: resolve(target) for target in targets}
    for target in targets:
        kind, wrapper = WRAPPERS[target]
        HookRegistry.register(target.replace(":", "."), wrapper, kind)
    HookRegistry.apply_hooks()
    if failed := [target for target in targets if resolve(target) is before[target]]:
        raise UnsupportedHostError("SGLang did not apply the hooks of multiverse:\n  " + "\n  ".join(failed))
