"""KV caches as vLLM allocates them, with layers around them, and writers for them that share nothing with our mover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from device import DEVICE, ON_CPU
from vllm.v1.attention.backends import cpu_attn, flash_attn, flex_attention, triton_attn
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    KVCacheConfig,
    KVCacheGroupSpec,
    KVCacheTensor,
    compute_layout_strides,
    get_kv_quant_mode,
)
from vllm.v1.kv_cache_layout import KVCacheLayout
from vllm.v1.worker.utils import allocate_kv_cache

HEADS, DIM, BLOCK, BLOCKS, LAYERS = 3, 32, 64, 6, 2

BACKENDS: dict[str, Any] = {
    "CPU_ATTN": cpu_attn.CPUAttentionBackend,
    "FLASH_ATTN": flash_attn.FlashAttentionBackend,
    "FLEX_ATTENTION": flex_attention.FlexAttentionBackend,
    "TRITON_ATTN": triton_attn.TritonAttentionBackend,
    # can't be imported where the library isn't; its specification is the common one but for NVFP4, which is refused
    "FLASHINFER": SimpleNamespace(get_name=lambda: "FLASHINFER", customize_spec=lambda spec: spec),
}


def make_runner(
    backend: str,
    layout: str = "LBNHC",
    dtype: torch.dtype = torch.float32,
    kv_cache_dtype: str = "auto",
    kernel_block: int = BLOCK,
    heads: int = HEADS,
    dim: int = DIM,
    block: int = BLOCK,
) -> Any:
    """What of a model runner a mover looks at: caches from vLLM's own allocation, in layers of the real backend."""
    order = KVCacheLayout[layout]
    spec = make_spec(backend, dtype, kv_cache_dtype, heads, dim, block)
    names = [f"layers.{i}.attn" for i in range(LAYERS)]
    layer_stride, block_stride, *_ = compute_layout_strides(spec, BLOCKS, LAYERS, order)
    tensor = KVCacheTensor(LAYERS * BLOCKS * spec.page_size_bytes, names, layer_stride, block_stride)
    config = KVCacheConfig(BLOCKS, [tensor], [KVCacheGroupSpec(names, spec)])
    caches = allocate_kv_cache(config, torch.device(DEVICE), order, [kernel_block])
    isa = cpu_attn._get_attn_isa(dtype, block, dim, kv_cache_dtype) if backend == "CPU_ATTN" else None
    layers = {
        name: make_layer(backend, cache, dtype, make_impl(backend, kv_cache_dtype, heads, dim), isa)
        for name, cache in caches.items()
    }
    return SimpleNamespace(
        device=torch.device(DEVICE),
        kv_cache_config=config,
        compilation_config=SimpleNamespace(static_forward_context=layers),
        model_config=SimpleNamespace(uses_mrope=False, rswa_window=None),
        vllm_config=SimpleNamespace(
            parallel_config=SimpleNamespace(decode_context_parallel_size=1, prefill_context_parallel_size=1)
        ),
    )


def make_spec(backend: str, dtype: torch.dtype, kv_cache_dtype: str, heads: int, dim: int, block: int) -> Any:
    """What vLLM is to allocate for a layer."""
    stored = torch.uint8 if kv_cache_dtype.startswith("fp8") else torch.int8 if "int" in kv_cache_dtype else dtype
    mode = get_kv_quant_mode(kv_cache_dtype)
    spec = FullAttentionSpec(block_size=block, num_kv_heads=heads, head_size=dim, dtype=stored, kv_quant_mode=mode)
    return BACKENDS[backend].customize_spec(spec)


def make_layer(backend: str, cache: torch.Tensor, dtype: torch.dtype, impl: Any, isa: Any) -> Any:
    """What of an attention layer a mover looks at."""
    return SimpleNamespace(
        kv_cache=cache,
        dtype=dtype,
        get_attn_backend=lambda: BACKENDS[backend],
        impl=impl,
        isa=isa,
        sliding_window=None,
        attn_type="decoder",
        _k_scale=torch.tensor(0.5, device=DEVICE),
        _v_scale=torch.tensor(2.0, device=DEVICE),
        _k_scale_float=0.5,
        _v_scale_float=2.0,
    )


def make_impl(backend: str, kv_cache_dtype: str, heads: int, dim: int) -> Any:
    """The backend's implementation where its cache writer runs on a CPU; else only what is looked at."""
    if backend in ("CPU_ATTN", "TRITON_ATTN") or (backend == "FLASH_ATTN" and not ON_CPU):
        return BACKENDS[backend].get_impl_cls()(heads, dim, 1.0, heads, None, None, kv_cache_dtype)
    return SimpleNamespace(alibi_slopes=None)


def layers_of(runner: Any) -> list[Any]:
    return list(runner.compilation_config.static_forward_context.values())


def write(runner: Any, slots: Sequence[int], seed: int) -> None:
    """Random keys and values of `len(slots)` tokens, through the backend's own writer, in every layer."""
    generator = torch.Generator().manual_seed(seed)
    for layer in layers_of(runner):
        heads, dim = layer.impl.num_kv_heads, layer.impl.head_size if hasattr(layer.impl, "head_size") else DIM
        key, value = torch.randn(2, len(slots), heads, dim, generator=generator).to(DEVICE, layer.dtype)
        layer.impl.do_kv_cache_update(layer, key, value, layer.kv_cache, torch.tensor(slots, device=DEVICE))


def memory(runner: Any) -> torch.Tensor:
    """All bytes of all layers, as they lie in memory."""
    return torch.empty(0, dtype=torch.uint8, device=DEVICE).set_(layers_of(runner)[0].kv_cache.untyped_storage())


def addresses(runner: Any, layout: str, kernel_block: int, layer: int, slot: int) -> torch.Tensor:
    """Where the bytes of a token are, computed from nothing but the letters of the layout's name.

    The letters name the axes, outermost first: layer, block, head, token, content.
    """
    spec = runner.kv_cache_config.kv_cache_groups[0].kv_cache_spec
    sizes = {
        "L": LAYERS,
        "B": BLOCKS * spec.block_size // kernel_block,
        "H": spec.num_heads,
        "N": kernel_block,
        "C": spec.state_content_size_bytes,
    }
    fixed = {"L": layer, "B": slot // kernel_block, "N": slot % kernel_block}
    found = torch.zeros(1, dtype=torch.int64)
    for i, letter in enumerate(layout):
        stride = math.prod(sizes[inner] for inner in layout[i + 1 :])
        steps = [fixed[letter]] if letter in fixed else range(sizes[letter])
        found = (found[:, None] + torch.tensor(steps) * stride).flatten()
    return found
