"""Every touch of SGLang's internals, as a table. Checked before anything is changed, and verified afterwards: SGLang
only logs a hook that fails to apply, we refuse to start."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from multiverse.errors import UnsupportedHostError
from multiverse.serving.hooks import Hook, describe, missing, resolve

VERSIONS = ("0.5.23",)
"""Versions of SGLang that this adapter was tested with."""

ARGUMENTS = "sglang.srt.server_args"
SCHEDULER = "sglang.srt.managers.scheduler:Scheduler"
REQUEST = "sglang.srt.managers.schedule_batch:Req"
BATCH = "sglang.srt.managers.schedule_batch:ScheduleBatch"
RELEASE = "sglang.srt.managers.schedule_batch:release_req"
ALLOCATION = "sglang.srt.mem_cache.allocation"
FORWARD = "sglang.srt.model_executor.forward_batch_info:ForwardBatch"
STREAMER = "sglang.srt.managers.scheduler_components.output_streamer:SchedulerOutputStreamer"
RUNNER = "sglang.srt.model_executor.model_runner:ModelRunner"
SAMPLING = "sglang.srt.sampling.sampling_batch_info:SamplingBatchInfo"
FRONT = "sglang.srt.managers.tokenizer_manager:TokenizerManager"
CHAT = "sglang.srt.entrypoints.openai.serving_chat:OpenAIServingChat"
COMPLETION = "sglang.srt.entrypoints.openai.serving_completions:OpenAIServingCompletion"
CHECKER = "sglang.srt.managers.scheduler_components.invariant_checker:SchedulerInvariantChecker"
DETOKENIZER = "sglang.srt.managers.detokenizer_manager:DetokenizerManager"
OBSERVER = "sglang.srt.managers.scheduler_components.pool_stats_observer:SchedulerPoolStatsObserver"
EXECUTOR = "sglang.lang.interpreter:StreamExecutor"
ENDPOINT = "sglang.lang.backend.runtime_endpoint:RuntimeEndpoint"
_CACHE = "sglang.srt.mem_cache.base_prefix_cache"
_ATTENTION = "sglang.srt.layers.attention"
_BACKEND = "sglang.srt.layers.attention.base_attn_backend:AttentionBackend"
_ALLOCATOR = "sglang.srt.mem_cache.allocator:BaseTokenToKVPoolAllocator"
_ROWS = "sglang.srt.mem_cache.memory_pool:ReqToTokenPool"
_REGISTRY = "sglang.srt.plugins.hook_registry:HookRegistry"

_FORK = "a scheduler API to fork a request and to splice the KV of others"
_PREFIX = "requests that may be queued with a prefix they hold"
_POSITIONS = "a position delta per request"
_SEGMENTS = "attention metadata that a plugin may write"
_TOKEN = "a per-token request callback"
_KEY = "custom radix keys per request"
_FIELDS = "extension fields in requests and responses"
_ROUTE = "a server that answers /concate_and_append_request"
_STATES = "a front end that tells its server which state makes a request, and which were forked from it"

HOOKS = (
    Hook(f"{ARGUMENTS}:prepare_server_args", ("argv",), True,
         "`sglang serve` copies its command line before plugins are loaded: take our flags out of the copy", "0.5.23",
         "plugins that may add arguments"),
    Hook(f"{ARGUMENTS}:ServerArgs.add_cli_args", ("parser",), True, "show our flags in its help", "0.5.23",
         "plugins that may add arguments"),
    Hook(f"{SCHEDULER}.__init__", ("server_args",), True,
         "give each scheduler its conductor; refuse what can't work", "0.5.23", "a plugin hook for schedulers"),
    Hook(f"{SCHEDULER}.get_output_streamer_class", (), True, "records and events go out with tokens", "0.5.23",
         "nothing: SGLang offers it"),
    Hook(f"{SCHEDULER}.get_prefill_adder_class", (), True, "learn when it is slots that are lacking", "0.5.23",
         "nothing: SGLang offers it"),
    Hook("sglang.srt.managers.schedule_policy:PrefillAdder.add_one_req", ("req", "has_chunked_req"), False,
         "learn when it is slots that are lacking", "0.5.23", "a plan that says why it is empty"),
    Hook("sglang.srt.managers.schedule_policy:PrefillAdder", ("NO_TOKEN",), False, "the same", "0.5.23",
         "a plan that says why it is empty"),
    Hook(f"{SCHEDULER}._add_request_to_queue", ("req", "is_retracted"), True,
         "give each request its controller; replay what was retracted", "0.5.23", _FORK),
    Hook(f"{SCHEDULER}.get_next_batch_to_run", ("running_batch", "last_batch"), True,
         "make room before SGLang retracts; schedule strands first", "0.5.23", _FORK),
    Hook(f"{SCHEDULER}.process_batch_result", ("batch", "result"), True,
         "fork, park and join between steps; answer in document order", "0.5.23", _FORK),
    Hook(f"{SCHEDULER}._abort_on_queued_limit", ("recv_req",), True, "strands are no requests of clients", "0.5.23",
         _FORK),
    Hook(f"{SCHEDULER}.is_fully_idle", ("for_health_check", "ignore_waiting"), True, "parked strands are not idleness",
         "0.5.23", _FORK),
    Hook(f"{SCHEDULER}.on_idle", (), True, "compare the books when nothing is left to do", "0.5.23", _FORK),
    Hook(f"{SCHEDULER}.pause_generation", ("recv_req",), True, "who is retracted gives up all KV of its tree", "0.5.23",
         _FORK),
    Hook(f"{SCHEDULER}.record_weight_version_change", ("new_version",), True,
         "note which tokens of strands are of which weights", "0.5.23", _FORK),
    Hook("sglang.srt.utils.weight_versions:WeightVersionEvent", ("old_version", "num_output_tokens"), False,
         "tell clients of them in document order", "0.5.23", _FORK),
    Hook("sglang.srt.runtime_context:get_serving", (), False, "the version of the weights", "0.5.23", _FORK),
    Hook(RELEASE, ("req",), True, "count what a retracted run had computed, and forget it", "0.5.23", _FORK),
    Hook(f"{CHECKER}._check_full_pool", ("ps", "uncached"), False, "whether slots add up", "0.5.23", "nothing"),
    Hook(f"{SCHEDULER}.abort_request", ("recv_req",), True, "an aborted request takes its branches with it", "0.5.23",
         _FORK),
    Hook(f"{REQUEST}.update_finish_state", ("new_accepted_len",), True,
         "hand every sampled token to the controller", "0.5.23", _TOKEN),
    Hook(f"{REQUEST}.init_next_round_input", ("tree_cache", "cow_mamba"), True,
         "let a strand begin with the slots it holds", "0.5.23", _PREFIX),
    Hook(f"{ALLOCATION}:_prefix_kv_indices", ("batch", "req"), True,
         "write the slots a strand holds into its new row, the page in part its own with them", "0.5.23", _PREFIX),
    Hook(f"{BATCH}._get_decode_retraction_order", ("reqs",), True,
         "retract whoever came last first", "0.5.23", _FORK),
    Hook(f"{FORWARD}.init_new", ("batch", "model_runner"), True,
         "add the position delta; copy partly filled pages", "0.5.23", _POSITIONS),
    Hook(f"{RUNNER}.forward", ("forward_batch",), True, "attention to segments of a prompt as if they were requests",
         "0.5.23", _SEGMENTS),
    Hook(f"{SAMPLING}.from_schedule_batch", ("batch",), True,
         "penalties count what a strand has generated in runs before", "0.5.23", _FORK),
    Hook(f"{DETOKENIZER}.trim_matched_stop", ("output", "finished_reason", "no_stop_trim"), True,
         "cut at the stop string that ended the answer: others may stand in branches", "0.5.23",
         "finish reasons that say where the text ends"),
    Hook(f"{REQUEST}.check_match_stop_str_prefix", (), False, "send nothing that may be cut", "0.5.23",
         "finish reasons that say where the text ends"),
    Hook("sglang.srt.managers.schedule_batch:FINISH_MATCHED_STR.to_json", (), False, "say where", "0.5.23",
         "finish reasons that say where the text ends"),
    Hook(f"{FRONT}.update_request_meta_info", ("meta_info", "state", "customized_info", "index", "finish_reason"), True,
         "receive records and events", "0.5.23", _FIELDS),
    Hook(f"{FRONT}.generate_request", ("obj", "request"), True,
         "check what is asked; hand answers on; put what states of programs ask for into tokens", "0.5.23", _FIELDS),
    Hook(f"{STREAMER}.stream_output", ("reqs", "return_logprob", "skip_req"), True,
         "strands have no client of their own", "0.5.23", _FORK),
    Hook(f"{CHECKER}._get_total_uncached_sizes", (), True,
         "the leak check between steps has to know what strands hold", "0.5.23", _FORK),
    Hook(f"{STREAMER}.build_additional_customized_info", ("reqs",), False,
         "give records and events to the requests that go out", "0.5.23", "nothing: SGLang offers it"),
    Hook("sglang.srt.constrained.xgrammar_backend:XGrammarGrammar.fill_vocab_mask", ("vocab_mask", "idx"), False,
         "strict structure: one bit per token that may be sampled", "0.5.23", "nothing: SGLang offers it"),
    *(Hook(f"sglang.srt.sampling.penaltylib:Batched{kind}Penalizer",
           (f"{kind.lower()}_penalties", f"cumulated_{kind.lower()}_penalties"), False, "complete its counts", "0.5.23",
           "penalizers that ask requests for what they count") for kind in ("Frequency", "Presence", "Repetition")),
    Hook(f"{SCHEDULER}.flush_cache", ("empty_cache",), True,
         "forget what states of programs keep and, while it is paused, what trees hold", "0.5.23", _FORK),
    Hook(f"{OBSERVER}.session_held_tokens", (), True, "the leak checks have to know what states of programs keep",
         "0.5.23", _ROUTE),
    Hook(f"{FRONT}._dispatch_to_scheduler", (), False, "say that a state ended", "0.5.23", _ROUTE),
    Hook(FRONT, ("tokenizer", "rid_to_state", "context_len"), False,
         "tokens of pieces of text; states that are busy; positions there are", "0.5.23", _ROUTE),
    Hook("sglang.srt.managers.io_struct:GenerateReqInput", ("rid", "text", "input_ids", "sampling_params",
         "image_data", "video_data", "audio_data"), False, "compute a joined text", "0.5.23", _ROUTE),
    Hook("sglang.srt.managers.io_struct:AbortReq", ("abort_all",), False, "say that a state ended", "0.5.23", _ROUTE),
    Hook(REQUEST, ("origin_input_ids", "output_ids", "full_untruncated_fill_ids", "prefix_len", "last_node",
         "last_host_node", "best_match_node", "host_hit_length", "swa_host_hit_length", "mamba_host_hit_length",
         "num_matched_prefix_tokens", "already_computed", "kv", "lock", "finished_reason", "finished_len",
         "finished_output", "skip_radix_cache_insert", "extra_key", "cache_salt", "lora_id", "logprob",
         "logprob_start_len", "cached_tokens", "grammar", "session", "beam_group", "to_finish", "time_stats",
         "weight_version_events"), False,
         "make requests for strands, end them, and answer the client", "0.5.23", _FORK),
    Hook("sglang.srt.managers.schedule_batch:ReqKvInfo", ("req_pool_idx", "cache_protected_len", "kv_committed_len",
         "kv_allocated_len"), False, "read what a request holds", "0.5.23", _FORK),
    Hook("sglang.srt.managers.schedule_batch:ReqKvInfo.mark_kv_released", (), False,
         "take it over", "0.5.23", _FORK),
    Hook(SCHEDULER, ("waiting_queue", "running_batch", "last_batch", "chunked_req", "tree_cache",
         "token_to_kv_pool_allocator", "req_to_token_pool", "output_streamer", "invariant_checker",
         "pool_stats_observer", "_engine_paused", "enable_priority_scheduling",
         "schedule_low_priority_values_first"), False,
         "queue requests and see what runs", "0.5.23", _FORK),
    Hook(RUNNER, ("attn_backend", "prefill_attention_backend_str", "prefill_cuda_graph_runner", "kv_index_translator",
         "use_mla_backend"), False, "see what attention does, and stand in for it", "0.5.23", _SEGMENTS),
    Hook(FORWARD, ("batch_size", "req_pool_indices", "req_pool_indices_cpu", "seq_lens", "seq_lens_cpu",
         "seq_lens_sum", "orig_seq_lens", "extend_seq_lens", "extend_seq_lens_cpu", "extend_prefix_lens",
         "extend_prefix_lens_cpu", "extend_start_loc"), False, "show it segments", "0.5.23", _SEGMENTS),
    Hook(f"{_BACKEND}.init_forward_metadata", ("forward_batch",), False, "plan for them", "0.5.23", _SEGMENTS),
    Hook(f"{_BACKEND}.forward", ("q", "k", "v", "layer", "forward_batch"), False, "attend", "0.5.23", _SEGMENTS),
    Hook(f"{_ROWS}.alloc_rows", ("need_size",), False, "rows for segments", "0.5.23", _SEGMENTS),
    Hook(f"{_ROWS}.free_rows", ("indices",), False, "give them back", "0.5.23", _SEGMENTS),
    Hook(SCHEDULER, ("enable_overlap", "schedule_stream", "forward_stream", "forward_stream_ctx"), False,
         "move tokens between two forwards", "0.5.23", _FORK),
    Hook(f"{_ALLOCATOR}.alloc", ("need_size",), False, "a page for a branch", "0.5.23", _FORK),
    Hook(f"{_ALLOCATOR}.free", ("free_index",), False, "give slots back, by pages", "0.5.23", _FORK),
    Hook(f"{_ALLOCATOR}.evict_to_free_tokens", ("tree_cache", "num_tokens"), False, "room for that page", "0.5.23",
         _FORK),
    Hook("sglang.srt.mem_cache.allocator.page_interleave:page_interleave_shard_size", ("allocator",), False,
         "refuse pages that are divided among ranks", "0.5.23", _FORK),
    Hook("sglang.srt.mem_cache.memory_pool:MHATokenToKVPool", ("use_native_move_kv_cache", "kv_cache_layout"), False,
         "move tokens by indexing; refuse layouts that can't", "0.5.23", _FORK),
    Hook("sglang.srt.mem_cache.memory_pool:MHATokenToKVPool.move_kv_cache", ("tgt_loc", "src_loc"), False,
         "whole pages at forks and joins", "0.5.23", _FORK),
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
    Hook(f"{ALLOCATION}:get_last_loc", ("req_to_token", "req_pool_indices_tensor", "prefix_lens_tensor"), True,
         "it takes Triton for granted unless it knows a backend by its name", "0.5.23", "a question to the backend"),
    Hook(f"{ALLOCATION}:get_last_loc_torch", ("req_to_token", "req_pool_indices_tensor", "prefix_lens_tensor"), False,
         "what it calls else", "0.5.23", "a question to the backend"),
    Hook(f"{_ATTENTION}.attention_registry:register_attention_backend", ("name",), False, "our attention backend",
         "0.5.23", "nothing: SGLang offers it"),
    Hook("sglang.srt.arg_groups.choices:add_attention_backend_choices", (), False, "choose it", "0.5.23",
         "nothing: SGLang offers it"),
    Hook(f"{_ATTENTION}.torch_native_backend:TorchNativeAttnBackend", ("device", "req_to_token_pool",
         "token_to_kv_pool"), False, "it is made from this one", "0.5.23", "nothing"),
    Hook("sglang.srt.layers.radix_attention:RadixAttention", ("tp_q_head_num", "qk_head_dim", "v_head_dim", "scaling",
         "layer_id", "logit_cap", "sliding_window_size", "is_cross_attention", "attn_type"), False,
         "attend; refuse models that need more", "0.5.23", "nothing"),
    Hook("sglang.srt.mem_cache.memory_pool:KVWriteLoc", ("loc",), False, "write the KV of new tokens", "0.5.23",
         "nothing"),
    Hook("sglang.srt.mem_cache.memory_pool:MHATokenToKVPool.set_kv_buffer", ("layer", "loc_info", "cache_k", "cache_v"),
         False, "write the KV of new tokens", "0.5.23", "nothing"),
    Hook(f"{_REGISTRY}.register", ("target", "hook", "hook_type"), False, "apply the wrappers", "0.5.23", "nothing"),
    Hook(f"{_REGISTRY}.apply_hooks", (), False, "apply the wrappers", "0.5.23", "a report of what failed to apply"),
)  # fmt: skip

FRONT_END = (
    Hook(f"{EXECUTOR}.fork", ("size", "position_ids_offset"), True,
         "call `fork_program` of the backend, which the front end declares and never calls", "0.5.23", _STATES),
    Hook(EXECUTOR, ("sid", "text_", "images_", "backend", "use_thread", "worker"), False, "know a state", "0.5.23",
         _STATES),
    Hook(f"{ENDPOINT}._add_images", ("s", "data"), True, "name the state that makes a request", "0.5.23", _STATES),
    Hook(f"{ENDPOINT}._assert_success", ("res",), False, "report what the server refuses", "0.5.23", "nothing"),
    Hook(f"{ENDPOINT}.concatenate_and_append", ("src_rids", "dst_rid"), True, "name states as the server does",
         "0.5.23", _STATES),
    Hook("sglang.lang.backend.base_backend:BaseBackend.fork_program", ("src", "dst", "position_ids_offset"), True,
         "tell the server of a fork", "0.5.23", _STATES),
    Hook("sglang.lang.backend.base_backend:BaseBackend.end_program", ("s",), True, "tell it of the end", "0.5.23",
         _STATES),
    Hook("sglang.utils:http_request", ("url", "json", "api_key", "verify"), False, "call the server", "0.5.23",
         "nothing"),
)  # fmt: skip
"""What the backend for programs (`programs.py`) touches in their own process, which may be without a server."""


API_HOOKS = (
    Hook(f"{CHAT}._generate_chat_stream", ("adapted_request", "request", "raw_request"), True,
         "events, trees and figures", "0.5.23", _FIELDS),
    Hook(f"{CHAT}._handle_non_streaming_request", ("adapted_request", "request", "raw_request"), True,
         "trees and figures", "0.5.23", _FIELDS),
    Hook(f"{COMPLETION}._generate_completion_stream", ("adapted_request", "request", "raw_request"), True,
         "events, trees and figures", "0.5.23", _FIELDS),
    Hook(f"{COMPLETION}._handle_non_streaming_request", ("adapted_request", "request", "raw_request"), True,
         "trees and figures", "0.5.23", _FIELDS),
    Hook("sglang.srt.entrypoints.http_server:app", (), False, "take the field out of requests; add routes", "0.5.23",
         _FIELDS),
    Hook("sglang.srt.entrypoints.http_server:get_global_state", (), False, "find the server's states", "0.5.23",
         _ROUTE),
)  # fmt: skip
"""Of processes that serve HTTP only: their modules take seconds to import."""


def check() -> list[str]:
    """What of the table this SGLang does not have; empty if all is there."""
    version = host_version()
    if version in VERSIONS:
        return missing(HOOKS)
    return [f"SGLang {version} was never tested; known are {', '.join(VERSIONS)}", *missing(HOOKS)]


def report() -> dict[str, Any]:
    """For `multiverse check`: the host, its version, what is wrong, and the table. Entry point `multiverse.hosts`."""
    version = host_version()
    return describe("sglang", version, check() if version != "none" else [], (*HOOKS, *API_HOOKS, *FRONT_END))


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
    _refuse(check())
    from multiverse_sglang.attention import offer
    from multiverse_sglang.scheduler.wrappers import WRAPPERS

    _apply(HOOKS, WRAPPERS)
    offer()


@functools.cache
def install_api() -> None:
    """The same for SGLang's HTTP server, in the process that is about to serve."""
    _refuse(missing(API_HOOKS))
    from multiverse_sglang.frontend import api

    _apply(API_HOOKS, api.WRAPPERS)
    api.install()


def _refuse(problems: list[str]) -> None:
    if problems:
        raise UnsupportedHostError("multiverse can't run in this SGLang:\n  " + "\n  ".join(problems))


def _apply(hooks: tuple[Hook, ...], wrappers: Mapping[str, tuple[Any, Any]]) -> None:
    from sglang.srt.plugins.hook_registry import HookRegistry

    targets = [hook.target for hook in hooks if hook.wrapped]
    before = {target: resolve(target) for target in targets}
    for target in targets:
        kind, wrapper = wrappers[target]
        HookRegistry.register(target.replace(":", "."), wrapper, kind)
    HookRegistry.apply_hooks()
    if failed := [target for target in targets if resolve(target) is before[target]]:
        raise UnsupportedHostError("SGLang did not apply the hooks of multiverse:\n  " + "\n  ".join(failed))
