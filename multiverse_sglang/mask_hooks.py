"""Rows of the hook table (`multiverse_sglang/hooks.py`): SGLang's FlashInfer backend, and FlashInfer, for masks."""

from __future__ import annotations

from multiverse.serving.hooks import Hook

_BACKEND = "sglang.srt.layers.attention.flashinfer_backend"
_MASKS = "an attention backend that takes a mask for a plain extend"


def _reads(target: str, parameters: tuple[str, ...], why: str) -> Hook:
    return Hook(target, parameters, False, why, "0.5.22", _MASKS)


MASK_HOOKS = (
    _reads(f"{_BACKEND}:FlashInferAttnBackend", ("workspace_buffer", "indices_updater_prefill", "kv_indptr",
           "qo_indptr", "prefill_wrapper_ragged", "forward_metadata", "num_wrappers", "prefill_uses_dequant_workspace"),
           "plan for a wrapper of ours, and put it in place"),
    _reads(f"{_BACKEND}:FlashInferIndicesUpdaterPrefill", ("q_data_type", "data_type", "head_dim"),
           "compile a wrapper for what it plans"),
    _reads(f"{_BACKEND}:FlashInferIndicesUpdaterPrefill.call_begin_forward", ("wrapper_ragged", "wrapper_paged",
           "req_pool_indices", "paged_kernel_lens", "paged_kernel_lens_sum", "seq_lens", "prefix_lens", "kv_start_idx",
           "kv_indptr", "qo_indptr", "use_ragged", "spec_info", "cross_attention_custom_mask", "plan"),
           "plan a batch with a mask"),
    _reads(f"{_BACKEND}:PrefillMetadata", ("prefill_wrappers", "use_ragged", "extend_no_prefix"),
           "attend from pages, which are written before"),
    _reads("sglang.srt.model_executor.forward_batch_info:ForwardBatch", ("kv_loc_plan",), "plan a batch"),
    _reads("flashinfer:BatchPrefillWithPagedKVCacheWrapper.__init__", ("float_workspace_buffer", "kv_layout", "backend",
           "jit_args", "jit_kwargs", "variant_owns_mask"), "wrappers that take masks"),
    _reads("flashinfer:BatchPrefillWithPagedKVCacheWrapper.plan", ("custom_mask",), "give it the mask"),
    _reads("flashinfer:BatchPrefillWithPagedKVCacheWrapper.run", ("q", "paged_kv_cache", "v_scale"), "attend"),
)  # fmt: skip
"""Checked only where masks are asked for (`scheduler/prefill_way.py`): importing FlashInfer takes seconds."""
