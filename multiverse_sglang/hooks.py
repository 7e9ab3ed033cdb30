"""Every touch of SGLang's internals, as a table: the contract. Checked before anything is changed (`install.py`)."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from multiverse.serving.hooks import Hook, describe, needed
from multiverse.serving.options import Options
from multiverse.serving.pins import hints, read
from multiverse.serving.support import Support
from multiverse_sglang.draft_hooks import DRAFT_HOOKS
from multiverse_sglang.frontend.hooks import API_HOOKS, FRONT_END
from multiverse_sglang.holding_hooks import HOLDING_HOOKS
from multiverse_sglang.mask_hooks import MASK_HOOKS
from multiverse_sglang.rehearsal_hooks import REHEARSAL_HOOKS
from multiverse_sglang.result_hooks import RESULT_HOOKS
from multiverse_sglang.rows import FIELDS, ROUTE, reads, wraps

VERSIONS = ("0.5.22", "0.5.23")
"""Releases of SGLang that this adapter was tested with."""
RELEASES = Path(__file__).with_name("releases.json")
"""What they look like, by `tools/pin`."""

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
CHECKER = "sglang.srt.managers.scheduler_components.invariant_checker:SchedulerInvariantChecker"
DETOKENIZER = "sglang.srt.managers.detokenizer_manager:DetokenizerManager"
OBSERVER = "sglang.srt.managers.scheduler_components.pool_stats_observer:SchedulerPoolStatsObserver"
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
_OFFERED = "nothing: SGLang offers it"
_FLAGS = "plugins that may add arguments"
_STOPS = "finish reasons that say where the text ends"
_PLAN = "a plan that says why it is empty"

HELD_TOKENS = f"{OBSERVER}.plugin_held_tokens"
"""With `patches/sglang/held-tokens.patch`: the leak checks ask plugins what they hold."""

HOOKS = (
    wraps(f"{ARGUMENTS}:prepare_server_args", ("argv",),
          "`sglang serve` copies its command line before plugins are loaded: take our flags out of the copy", _FLAGS),
    wraps(f"{ARGUMENTS}:ServerArgs.add_cli_args", ("parser",), "show our flags in its help", _FLAGS),
    wraps(f"{SCHEDULER}.__init__", ("server_args",), "give each scheduler its conductor; refuse what can't work",
          "a plugin hook for schedulers"),
    wraps(f"{SCHEDULER}.get_output_streamer_class", (), "records and events go out with tokens", _OFFERED),
    wraps(f"{SCHEDULER}.get_prefill_adder_class", (), "learn when it is slots that are lacking", _OFFERED),
    reads("sglang.srt.managers.schedule_policy:PrefillAdder.add_one_req", ("req", "has_chunked_req"),
          "learn when it is slots that are lacking", _PLAN),
    reads("sglang.srt.managers.schedule_policy:PrefillAdder", ("NO_TOKEN",), "the same", _PLAN),
    wraps(f"{SCHEDULER}._add_request_to_queue", ("req", "is_retracted"),
          "give each request its controller; replay what was retracted", _FORK),
    wraps(f"{SCHEDULER}.get_next_batch_to_run", ("running_batch", "last_batch"),
          "make room before SGLang retracts; schedule strands first", _FORK),
    wraps(f"{SCHEDULER}.process_batch_result", ("batch", "result"),
          "fork, park and join between steps; answer in document order", _FORK),
    wraps(f"{SCHEDULER}._abort_on_queued_limit", ("recv_req",), "strands are no requests of clients", _FORK),
    wraps(f"{SCHEDULER}.is_fully_idle", ("for_health_check", "ignore_waiting"), "parked strands are not idle", _FORK),
    wraps(f"{SCHEDULER}.on_idle", (), "compare the books when nothing is left to do", _FORK),
    wraps(f"{SCHEDULER}.pause_generation", ("recv_req",), "who is retracted gives up all KV of its tree", _FORK),
    wraps(f"{SCHEDULER}.record_weight_version_change", ("new_version",),
          "note which tokens of strands are of which weights", _FORK),
    reads("sglang.srt.utils.weight_versions:WeightVersionEvent", ("old_version", "num_output_tokens"),
          "tell clients of them in document order", _FORK),
    reads("sglang.srt.runtime_context:get_serving", (), "the version of the weights", _FORK),
    reads("sglang.srt.runtime_context:get_exec", (), "whether sampling is deterministic, without min_p", _FORK),
    wraps(RELEASE, ("req",), "count what a retracted run had computed, and forget it", _FORK),
    reads(f"{CHECKER}._check_full_pool", ("ps", "uncached"), "whether slots add up", "nothing"),
    wraps(f"{SCHEDULER}.abort_request", ("recv_req",), "an aborted request takes its branches with it", _FORK),
    reads(f"{REQUEST}.update_finish_state", ("new_accepted_len",),
          "requests that are watched are of classes of ours, which hand their tokens to the controller", _TOKEN),
    reads("sglang.srt.managers.utils:GenerationBatchResult", ("next_token_ids", "copy_done"),
          "see which requests sample a tag", _TOKEN),
    wraps(f"{REQUEST}.init_next_round_input", ("tree_cache", "cow_mamba"),
          "let a strand begin with the slots it holds", _PREFIX, replaced=True),
    wraps(f"{ALLOCATION}:_prefix_kv_indices", ("batch", "req"),
          "write the slots a strand holds into its new row, the page in part its own with them", _PREFIX,
          replaced=True),
    wraps(f"{BATCH}._get_decode_retraction_order", ("reqs",), "retract whoever came last first", _FORK),
    wraps(f"{BATCH}.retract_decode", (), "let whoever would be aborted wait for what trees hold", _FORK),
    wraps(f"{FORWARD}.init_new", ("batch", "model_runner"), "add the position delta; copy partly filled pages",
          _POSITIONS),
    wraps(f"{RUNNER}.forward", ("forward_batch",), "attention to segments of a prompt as if they were requests",
          _SEGMENTS),
    wraps(f"{SAMPLING}.from_schedule_batch", ("batch",), "penalties count what earlier runs generated", _FORK),
    wraps(f"{DETOKENIZER}.trim_matched_stop", ("output", "finished_reason", "no_stop_trim"),
          "cut at the stop string that ended the answer: others may stand in branches", _STOPS),
    reads(f"{REQUEST}.check_match_stop_str_prefix", (), "send nothing that may be cut", _STOPS),
    reads("sglang.srt.managers.schedule_batch:FINISH_MATCHED_STR.to_json", (), "say where", _STOPS),
    reads("sglang.srt.managers.schedule_batch:FINISHED_MATCHED_REGEX", ("matched",), "take a match out", _STOPS),
    wraps(f"{FRONT}.update_request_meta_info", ("meta_info", "state", "customized_info", "index", "finish_reason"),
          "receive records and events", FIELDS),
    wraps(f"{FRONT}.generate_request", ("obj", "request"),
          "check what is asked; hand answers on; put what states of programs ask for into tokens", FIELDS),
    wraps(f"{STREAMER}.stream_output", ("reqs", "return_logprob", "skip_req"), "strands have no client", _FORK),
    wraps(f"{CHECKER}._get_total_uncached_sizes", (), "tell leak checks what strands hold", _FORK, HELD_TOKENS),
    reads(f"{CHECKER}._get_total_uncached_sizes", (), "whether slots add up", "nothing"),
    reads(f"{STREAMER}.build_additional_customized_info", ("reqs",),
          "give records and events to the requests that go out", _OFFERED),
    reads("sglang.srt.constrained.xgrammar_backend:XGrammarGrammar.fill_vocab_mask", ("vocab_mask", "idx"),
          "strict structure: one bit per token that may be sampled", _OFFERED),
    wraps(f"{SCHEDULER}.flush_cache", ("empty_cache",),
          "forget what states of programs keep and, while it is paused, what trees hold", _FORK),
    wraps(f"{OBSERVER}.session_held_tokens", (), "tell them what states of programs keep", ROUTE, HELD_TOKENS),
    reads(f"{FRONT}._dispatch_to_scheduler", (), "say that a state ended", ROUTE),
    reads(FRONT, ("tokenizer", "rid_to_state", "context_len"),
          "tokens of pieces of text; states that are busy; positions there are", ROUTE),
    reads("sglang.srt.managers.io_struct:GenerateReqInput", ("rid", "text", "input_ids", "sampling_params",
          "image_data", "video_data", "audio_data"), "compute a joined text", ROUTE),
    reads("sglang.srt.managers.io_struct:AbortReq", ("abort_all",), "say that a state ended", ROUTE),
    reads(REQUEST, ("origin_input_ids", "output_ids", "full_untruncated_fill_ids", "prefix_len", "last_node",
          "last_host_node", "best_match_node", "host_hit_length", "swa_host_hit_length", "mamba_host_hit_length",
          "num_matched_prefix_tokens", "already_computed", "kv", "lock", "finished_reason", "finished_len",
          "finished_output", "skip_radix_cache_insert", "extra_key", "cache_salt", "lora_id", "logprob",
          "logprob_start_len", "cached_tokens", "grammar", "session", "beam_group", "to_finish", "is_retracted",
          "time_stats", "weight_version_events"), "make requests for strands, end them, and answer the client", _FORK),
    reads("sglang.srt.configs.model_config:ModelConfig", ("hf_eos_token_id", "vocab_size", "context_len"),
          "see which tokens end a turn, and how many positions there are", _FORK),
    reads("sglang.srt.managers.schedule_batch:ReqKvInfo", ("req_pool_idx", "cache_protected_len", "kv_committed_len",
          "kv_allocated_len"), "read what a request holds", _FORK),
    reads("sglang.srt.managers.schedule_batch:ReqKvInfo.mark_kv_released", (), "take it over", _FORK),
    reads(SCHEDULER, ("waiting_queue", "running_batch", "last_batch", "chunked_req", "tree_cache",
          "token_to_kv_pool_allocator", "req_to_token_pool", "output_streamer", "invariant_checker",
          "pool_stats_observer", "_engine_paused", "enable_priority_scheduling", "schedule_low_priority_values_first"),
          "queue requests and see what runs", _FORK),
    reads(RUNNER, ("attn_backend", "prefill_attention_backend_str", "prefill_cuda_graph_runner", "kv_index_translator",
          "use_mla_backend", "decode_attention_backend_str", "decode_cuda_graph_runner"),
          "see what attention does, and stand in for it", _SEGMENTS),
    reads(FORWARD, ("batch_size", "req_pool_indices", "req_pool_indices_cpu", "seq_lens", "seq_lens_cpu",
          "seq_lens_sum", "orig_seq_lens", "extend_seq_lens", "extend_seq_lens_cpu", "extend_prefix_lens",
          "extend_prefix_lens_cpu", "extend_start_loc"), "show it segments", _SEGMENTS),
    reads(f"{_BACKEND}.init_forward_metadata", ("forward_batch",), "plan for them", _SEGMENTS),
    reads(f"{_BACKEND}.forward", ("q", "k", "v", "layer", "forward_batch"), "attend", _SEGMENTS),
    reads(f"{_ROWS}.alloc_rows", ("need_size",), "rows for segments", _SEGMENTS),
    reads(f"{_ROWS}.free_rows", ("indices",), "give them back", _SEGMENTS),
    reads(SCHEDULER, ("enable_overlap", "schedule_stream", "forward_stream", "forward_stream_ctx"),
          "move tokens between two forwards", _FORK),
    reads(f"{_ALLOCATOR}.alloc", ("need_size",), "a page for a branch", _FORK),
    reads(f"{_ALLOCATOR}.free", ("free_index",), "give slots back, by pages", _FORK),
    reads(f"{_ALLOCATOR}.evict_to_free_tokens", ("tree_cache", "num_tokens"), "room for that page", _FORK),
    reads("sglang.srt.mem_cache.allocator.page_interleave:page_interleave_shard_size", ("allocator",),
          "refuse pages that are divided among ranks", _FORK),
    reads("sglang.srt.mem_cache.memory_pool:MHATokenToKVPool", ("use_native_move_kv_cache", "kv_cache_layout"),
          "move tokens by indexing; refuse layouts that can't", _FORK),
    reads("sglang.srt.mem_cache.memory_pool:MHATokenToKVPool.move_kv_cache", ("tgt_loc", "src_loc"),
          "whole pages at forks and joins", _FORK),
    reads(f"{_ROWS}.free", ("req",), "give rows back", _FORK),
    reads(_ROWS, ("req_to_token",), "read the slots of a row", _FORK),
    reads(f"{_CACHE}:BasePrefixCache.lock", ("node",), "keep shared slots from being evicted", _FORK),
    reads(f"{_CACHE}:BasePrefixCache.unlock", ("lock",), "let them go", _FORK),
    reads(f"{_CACHE}:BasePrefixCache.root_node_handle", ("extra_key",), "a prefix that is not in the tree", _PREFIX),
    reads(f"{_CACHE}:BasePrefixCache.prefix_device_indices", ("req",), "read cached blocks", _KEY),
    reads(f"{_CACHE}:InsertParams", ("key", "value", "prev_prefix_len", "inserted_len", "priority"),
          "cache blocks under their layout", _KEY),
    reads("sglang.srt.mem_cache.common:match_kv_cache", ("req", "tree_cache", "token_ids", "max_prefix_len"),
          "find them again", _KEY),
    reads("sglang.srt.mem_cache.unified_cache.tree_core_registry:select_tree_core_backend", ("params",),
          "tell which core the radix tree has", "nothing"),
    reads("sglang.srt.mem_cache.radix_cache:RadixKey.__init__", ("token_ids", "extra_key", "cache_salt"),
          "a key that says how KV was computed", _KEY),
    wraps(f"{ALLOCATION}:get_last_loc", ("req_to_token", "req_pool_indices_tensor", "prefix_lens_tensor"),
          "it takes Triton for granted unless it knows a backend by its name", "a question to the backend",
          replaced=True),
    reads(f"{ALLOCATION}:get_last_loc_torch", ("req_to_token", "req_pool_indices_tensor", "prefix_lens_tensor"),
          "what it calls else", "a question to the backend"),
    reads(f"{_ATTENTION}.attention_registry:register_attention_backend", ("name",), "our attention backend", _OFFERED),
    *(reads(f"{_ATTENTION}.attention_registry:create_{kind}_backend", ("runner",), "put our decode steps around it",
            "nothing") for kind in ("triton", "flashattention_v3", "flashinfer")),
    reads("sglang.srt.arg_groups.choices:add_attention_backend_choices", (), "choose it", _OFFERED),
    reads(f"{_BACKEND}.forward_decode", ("q", "k", "v", "layer", "forward_batch", "save_kv_cache"),
          "decode steps in which strands share a prefix", "nothing"),
    reads(f"{_ATTENTION}.torch_native_backend:TorchNativeAttnBackend", ("device", "req_to_token_pool",
          "token_to_kv_pool"), "it is made from this one", "nothing"),
    reads("sglang.srt.layers.radix_attention:RadixAttention", ("tp_q_head_num", "tp_k_head_num", "qk_head_dim",
          "v_head_dim", "scaling", "layer_id", "logit_cap", "sliding_window_size", "is_cross_attention", "attn_type"),
          "attend; refuse models that need more", "nothing"),
    reads("sglang.srt.mem_cache.memory_pool:KVWriteLoc", ("loc",), "write the KV of new tokens", "nothing"),
    reads("sglang.srt.mem_cache.memory_pool:MHATokenToKVPool.set_kv_buffer", ("layer", "loc_info", "cache_k",
          "cache_v"), "write the KV of new tokens", "nothing"),
    *DRAFT_HOOKS, *HOLDING_HOOKS, *REHEARSAL_HOOKS, *RESULT_HOOKS,
    reads(f"{_REGISTRY}.register", ("target", "hook", "hook_type"), "apply the wrappers", "nothing"),
    reads(f"{_REGISTRY}.apply_hooks", (), "apply the wrappers", "a report of what failed to apply"),
)  # fmt: skip

EVERY = (*HOOKS, *API_HOOKS, *FRONT_END, *(hook for hook in MASK_HOOKS if hook.target.startswith("sglang.")))
"""All that are about SGLang itself."""


def table() -> tuple[Hook, ...]:
    """The rows for which this SGLang offers nothing itself."""
    return needed(HOOKS, host_version())


def support() -> Support:
    """What is known of this SGLang's release."""
    return Support("SGLang", host_version(), VERSIONS, Options.from_environment().untested_host)


def check() -> list[str]:
    """Why the plugin can't run in this SGLang; empty if it can."""
    return support().problems(table())


def report() -> dict[str, Any]:
    """For `multiverse check`: the host, its version, what is wrong, and the table. Entry point `multiverse.hosts`."""
    version, rows = host_version(), (*table(), *API_HOOKS, *FRONT_END, *MASK_HOOKS)
    if version == "none":
        return describe("sglang", version, [], rows)
    problems = check()
    details = {"details": f"{tree_core()} core of the radix tree"} if not problems else {}
    return describe("sglang", version, problems, rows, hints("sglang", version, rows, read(RELEASES))) | details


def tree_core() -> str:
    """Which core of its radix tree this SGLang runs on this machine, with the default arguments."""
    from sglang.srt.mem_cache.unified_cache.tree_core_registry import select_tree_core_backend

    unset = ("tree_core_backend", "tree_components", "component_registry_override", "token_to_kv_pool_allocator")
    return str(select_tree_core_backend(SimpleNamespace(enable_session_radix_cache=False, **dict.fromkeys(unset))))


def host_version() -> str:
    """The version of SGLang; `none` if it isn't installed."""
    try:
        return metadata.version("sglang")
    except metadata.PackageNotFoundError:
        return "none"
