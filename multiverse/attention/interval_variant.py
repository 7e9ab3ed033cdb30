"""A variant of FlashInfer's `fa2` prefill that evaluates the interval form of the mask. Compiled; not run on a GPU.

A boolean mask takes a byte per pair of tokens until FlashInfer has packed it; this takes 8 bytes per token and level of
nesting. The kernel still visits every tile, as with a boolean mask. FlashInfer is not imported here: it compiles the
declaration, with nvcc, for the wrapper that is made with these arguments and `variant_owns_mask=True`.
"""

from __future__ import annotations

from typing import Any

import torch

NAME = "MultiverseIntervals"

DECLARATION = f"""
struct {NAME} : AttentionVariantBase {{
  static constexpr bool use_softmax = true;

  uint32_t qo_len, kv_len, window_left;
  int32_t depth;
  const int32_t* hidden;
  float sm_scale_log2;

  template <typename Params>
  __device__ __host__ {NAME}(const Params& params, uint32_t batch_idx, uint8_t*) {{
    qo_len = params.get_qo_len(batch_idx);
    kv_len = params.get_kv_len(batch_idx);
    window_left = kv_len;
    depth = int32_t(params.depth);
    hidden = params.hidden + int64_t(params.q_indptr[batch_idx]) * depth * 2;
    sm_scale_log2 = params.sm_scale * math::log2e;
  }}

  REGISTER_LOGITS_MASK(params, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx, {{
    // a tile is asked about queries behind the last one, too; what it does with the answer is nothing
    const uint32_t query = qo_idx < qo_len ? qo_idx : qo_len - 1;
    bool seen = kv_idx + qo_len <= kv_len + query;
    const int32_t* interval = hidden + int64_t(query) * depth * 2;
    for (int32_t level = 0; level < depth; ++level, interval += 2) {{
      seen = seen && !(int32_t(kv_idx) >= interval[0] && int32_t(kv_idx) < interval[1]);
    }}
    return seen;
  }})
}};
"""
"""Queries are the last tokens of a request; `hidden` is int32 `[queries of the batch, depth, 2]`, by key of the
request (`attention.flashinfer.hidden_of`)."""

OPTIONS = {"paged_kv_stride_mode": "independent"}
"""`jit_kwargs`. Keys and values may be of different strides, and no kernel is compiled twice for the case that not."""


def jit_arguments(dtype: torch.dtype, kv_dtype: torch.dtype, head_dim: int) -> list[Any]:
    """`jit_args` of `BatchPrefillWithPagedKVCacheWrapper`.

    `run` takes `hidden` and `depth` behind queries and cache; FlashInfer adds the scale.

    Args:
        dtype: of queries and results.
        kv_dtype: of the cache.
        head_dim: of queries, keys and values alike.
    """
    uri = f"multiverse_intervals_{_short(dtype)}_{_short(kv_dtype)}_{head_dim}"
    dtypes = [dtype, kv_dtype, dtype, torch.int32]
    tensors, scalars = ["hidden"], ["depth", "sm_scale"]
    return [uri, *dtypes, head_dim, head_dim, tensors, ["int32_t"], scalars, ["int64_t", "double"], NAME, DECLARATION]


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
