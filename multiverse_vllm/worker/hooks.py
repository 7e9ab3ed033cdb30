"""Rows of the hook table (`multiverse_vllm/hooks.py`): what is touched of vLLM's workers and their runners."""

from __future__ import annotations

from importlib.util import find_spec

from multiverse.serving.hooks import Hook

_RUNNER = "vllm.v1.worker.gpu_model_runner:GPUModelRunner"
_V2 = "vllm.v1.worker.gpu.model_runner"
_LAYER = "vllm.model_executor.layers.attention:Attention"
_PROCESSORS = "vllm.v1.worker.gpu.sample.logits_processor.interface"
_CPU_BACKEND = "vllm.v1.attention.backends.cpu_attn:CPUAttentionBackendImpl"
FORK = "a scheduler API to fork a request and to adopt another's blocks"
POSITIONS = "a position delta per request, as M-RoPE models have it"
_MOVES = "a host function that copies KV tokens"
_PUBLIC = "a public helper for logits processors"
SCORES = "prompt logprobs of a request that is computed in parts"

WORKER_HOOKS = (
    Hook("vllm.v1.sample.logits_processor.builtin:process_dict_updates", ("req_entries", "batch_update", "new_state"),
         False, "follow the rows of a batch", "0.31", _PUBLIC),
    Hook(_RUNNER, ("positions", "query_start_loc", "input_batch", "compilation_config", "device",
         "discard_request_mask"), False, "the buffer positions are read from", "0.31", POSITIONS),
    Hook(f"{_RUNNER}.initialize_kv_cache", ("kv_cache_config",), True,
         "refuse what can't work; learn the KV layout", "0.31", _MOVES),
    Hook(f"{_RUNNER}._update_states", ("scheduler_output",), True, "move KV tokens before the step", "0.18", FORK),
    Hook(f"{_RUNNER}._preprocess", ("scheduler_output", "num_input_tokens"), True,
         "add the position delta after slot mapping", "0.18", POSITIONS),
    Hook(f"{_RUNNER}.sample_tokens", ("grammar_output",), True,
         "prefilled in parts, seeded requests spare their generator", "0.31", "CPU generators that are not rewound"),
    Hook(f"{_RUNNER}._get_prompt_logprobs_dict", ("hidden_states", "num_scheduled_tokens"), True,
         "score prompts that hold blocks", "0.31", SCORES),
    Hook("vllm.v1.sample.rejection_sampler:expand_batch_to_tokens",
         ("x", "cu_num_tokens", "num_tokens", "replace_from", "replace_to"), True,
         "on a CPU, the temperatures of rows with drafts", "0.31", "a kernel that writes where it is told",
         replaced=True),
    Hook("vllm.v1.sample.rejection_sampler:apply_sampling_constraints", ("logits",), True,
         "on a CPU, a step in which nobody has drafts", "0.31", "a sampler that expects no logits"),
    Hook("vllm.v1.outputs:ModelRunnerOutput", ("prompt_logprobs_dict",), False,
         "send these scores to the scheduler", "0.31", SCORES),
    Hook("vllm.v1.worker.gpu_input_batch:CachedRequestState", ("prompt_token_ids", "output_token_ids"), False,
         "let penalties know what was generated before a join", "0.31", FORK),
    Hook("vllm.v1.worker.gpu_input_batch:InputBatch._make_sampling_metadata", (), False,
         "let penalties know what was generated before a join", "0.31", FORK),
    Hook("vllm.v1.kv_cache_interface:FullAttentionSpec", ("block_size", "sliding_window", "attention_chunk_size",
         "non_causal", "kv_quant_mode", "tokens_per_state"), False,
         "refuse caches that can't hold blocks", "0.31", _MOVES),
    Hook("vllm.v1.kv_cache_interface:KVCacheConfig", ("kv_cache_groups",), False, "the same", "0.31", _MOVES),
    Hook("vllm.v1.kv_cache_interface:KVCacheGroupSpec", ("layer_names", "kv_cache_spec"), False,
         "the same", "0.31", _MOVES),
    Hook("vllm.v1.kv_cache_interface:KVQuantMode", ("NONE", "FP8_PER_TENSOR", "is_per_token_head"), False,
         "the same", "0.31", _MOVES),
    Hook("vllm.v1.utils:CpuGpuBuffer", ("np",), False, "read where rows begin", "0.31", POSITIONS),
    Hook("vllm.v1.worker.gpu_input_batch:InputBatch", ("num_reqs",), False, "the same", "0.31", POSITIONS),
    Hook("vllm.model_executor.models.interfaces_base:VllmModelForTextGeneration.compute_logits", ("hidden_states",),
         False, "score prompts that hold blocks", "0.31", SCORES),
    Hook(_LAYER, ("kv_cache", "impl", "dtype", "sliding_window", "attn_type"), False,
         "find the cache of a layer and its layout", "0.31", _MOVES),
    Hook(f"{_LAYER}.get_attn_backend", (), False, "name the layout", "0.31", _MOVES),
    Hook(_CPU_BACKEND, ("alibi_slopes",), False, "refuse what depends on indices", "0.31", POSITIONS),
    Hook(f"{_CPU_BACKEND}.do_kv_cache_update", ("layer", "key", "value", "kv_cache", "slot_mapping"), False,
         "find out the KV layout of the CPU backend", "0.31", _MOVES),
    Hook("vllm.utils.torch_utils:async_tensor_h2d", ("data", "device"), False,
         "bring deltas and moves to the device without waiting", "0.31", _MOVES),
)  # fmt: skip

V2_HOOKS = (
    Hook(f"{_V2}:GPUModelRunner.initialize_kv_cache", ("kv_cache_config",), True, "as in V1", "0.31", _MOVES),
    Hook(f"{_V2}:GPUModelRunner.update_requests", ("scheduler_output",), True,
         "move KV tokens before the step", "0.18", FORK),
    Hook(f"{_V2}:GPUModelRunner.prepare_attn", ("input_batch",), True,
         "add the position delta after slot mapping", "0.31", POSITIONS),
    Hook("vllm.v1.worker.gpu.input_batch:InputBatch", ("req_ids", "query_start_loc_np", "positions"), False,
         "the buffer positions are read from", "0.31", POSITIONS),
    Hook("vllm.v1.worker.gpu.sample.prompt_logprob:PromptLogprobsWorker.compute_prompt_logprobs",
         ("logits_fn", "hidden_states", "input_batch"), True, "score prompts that hold blocks", "0.31", SCORES),
    Hook(f"{_V2}:GPUModelRunner", ("prompt_logprobs_worker",), False, "score prompts with blocks", "0.31", SCORES),
    Hook(f"{_PROCESSORS}:LogitsProcRequestState", ("all_token_ids", "prompt_len"), False,
         "follow what strict requests hold", "0.31", _PUBLIC),
    Hook("vllm.v1.worker.gpu.buffer_utils:StagedWriteTensor", ("gpu",), False, "the same", "0.31", _PUBLIC),
    Hook(f"{_PROCESSORS}:LogitsContext", ("idx_mapping_np", "seq_lens_upper_bound_np"), False,
         "follow the rows of a batch", "0.31", _PUBLIC),
)  # fmt: skip


def has_v2() -> bool:
    """Whether this vLLM has the V2 model runner; if not, what concerns it is not asked for."""
    try:
        return find_spec(_V2) is not None
    except ModuleNotFoundError:  # of a package around it
        return False
