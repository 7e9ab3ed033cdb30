"""Rows of the hook table (`multiverse_vllm/hooks.py`): what is touched of vLLM if prefixes are to be read once."""

from __future__ import annotations

from multiverse.serving.hooks import Hook

_BACKENDS = "vllm.v1.attention.backends"
_FORWARD = ("layer", "query", "key", "value", "kv_cache", "attn_metadata", "output", "output_scale",
            "output_block_scale")  # fmt: skip
_BUILD = ("common_prefix_len", "common_attn_metadata", "fast_build")
_OUTPUT = "vllm.v1.core.sched.output"
_SHARED = "attention that reads what rows of a decode step share once"

ATTENTION_HOOKS = (
    Hook(f"{_BACKENDS}.registry:register_backend", ("backend", "class_path"), False,
         "offer our attention backends", "0.31", _SHARED),
    Hook(f"{_BACKENDS}.triton_attn:TritonAttentionImpl.forward", _FORWARD, True,
         "attend to what rows share once", "0.31", _SHARED),
    Hook(f"{_BACKENDS}.triton_attn:TritonAttentionMetadataBuilder.build", _BUILD, True,
         "say with its metadata that a step is ours", "0.31", _SHARED),
    Hook(f"{_BACKENDS}.triton_attn:TritonAttentionMetadata", ("block_table",), False, "find KV", "0.31", _SHARED),
    Hook(f"{_BACKENDS}.triton_attn:TritonAttentionImpl", ("num_heads", "num_kv_heads", "head_size", "scale",
         "logits_soft_cap", "sinks"), False, "know the shape of a layer, and refuse others", "0.31", _SHARED),
    Hook(f"{_BACKENDS}.flash_attn:FlashAttentionImpl.forward", _FORWARD, True, "as with Triton", "0.31", _SHARED),
    Hook(f"{_BACKENDS}.flash_attn:FlashAttentionMetadataBuilder.build", _BUILD, True, "as with Triton", "0.31",
         _SHARED),
    Hook(f"{_BACKENDS}.flash_attn:FlashAttentionMetadata", ("block_table",), False, "find KV", "0.31", _SHARED),
    Hook(f"{_BACKENDS}.flash_attn:FlashAttentionImpl", ("num_heads", "num_kv_heads", "head_size", "scale",
         "logits_soft_cap", "sinks"), False, "as with Triton", "0.31", _SHARED),
    Hook("vllm.v1.worker.utils:AttentionGroup", ("metadata_builders",), False, "reach the builders", "0.31", _SHARED),
    Hook("vllm.v1.worker.gpu_model_runner:GPUModelRunner", ("attn_groups", "cudagraph_dispatcher", "kv_cache_config",
         "vllm_config", "model_config"), False, "reach builders and graphs", "0.31", _SHARED),
    Hook("vllm.config.compilation:CUDAGraphMode", ("FULL",), False, "name them", "0.31", _SHARED),
    Hook("vllm.v1.cudagraph_dispatcher:CudagraphDispatcher.dispatch", ("invalid_modes",), True,
         "keep steps that are ours out of full graphs", "0.31", _SHARED),
    Hook(f"{_OUTPUT}:SchedulerOutput", ("scheduled_new_reqs", "scheduled_cached_reqs", "finished_req_ids",
         "num_scheduled_tokens", "total_num_scheduled_tokens"), False, "know who is in a step", "0.31", _SHARED),
    Hook(f"{_OUTPUT}:NewRequestData", ("req_id", "block_ids", "num_computed_tokens"), False,
         "know which blocks a request begins with", "0.31", _SHARED),
    Hook(f"{_OUTPUT}:CachedRequestData", ("req_ids", "resumed_req_ids", "new_block_ids", "num_computed_tokens"), False,
         "know how long rows are", "0.31", _SHARED),
)  # fmt: skip

ATTENTION_HOOKS_V2 = (
    Hook("vllm.v1.worker.gpu.model_runner:GPUModelRunner", ("attn_groups", "cudagraph_manager", "kv_cache_config",
         "vllm_config", "model_config"), False, "as in V1", "0.31", _SHARED),
    Hook("vllm.v1.worker.gpu.cudagraph_utils:CudaGraphManager.dispatch",
         ("num_reqs", "num_tokens", "uniform_token_count", "max_query_len"), True, "as in V1", "0.31", _SHARED),
)  # fmt: skip
