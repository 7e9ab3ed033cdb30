"""FlashInfer on a CPU: its host code as it is, and torch in place of what it would compile and load.

Stubbed is the binding (`JitSpec.build_and_load`), and pinned memory, of which there is none without a driver. The stub
takes what a kernel takes and reads it as a kernel does: a packed mask by the bytes at each request's offset, the
interval variant by its own declaration, compiled for the CPU.
"""

from __future__ import annotations

import ctypes
import math
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from multiverse.attention.interval_variant import DECLARATION, NAME

CUSTOM, CAUSAL = 2, 1
"""FlashInfer's `MaskMode`."""

Visible = Callable[[int, int, int], np.ndarray]
"""For a request with so many queries and keys: who sees whom, `[queries, keys]`."""


class Kernels:
    """A module as FlashInfer loads it, whatever its name.

    Attributes:
        plans: arguments of every call of `plan`.
        runs: names of the modules that were run.
    """

    def __init__(self) -> None:
        self.plans: list[tuple[Any, ...]] = []
        self.runs: list[str] = []

    def load(self, spec: Any) -> Any:
        intervals = spec.name.startswith("multiverse_intervals")

        def paged_run(*arguments: Any) -> None:
            self.runs.append(spec.name)
            (_by_intervals if intervals else _by_mask)(*arguments)

        module = ModuleType(spec.name)  # FlashInfer wants it to have a hash
        vars(module).update(
            plan=self.plan, workspace_size=None, paged_run=paged_run, ragged_run=None, segment_packbits=_pack
        )
        return module

    def plan(self, *arguments: Any) -> list[int]:
        self.plans.append(arguments)
        return [len(self.plans)]


KERNELS = Kernels()
"""The only ones: FlashInfer keeps what it has loaded."""


@contextmanager
def on_cpu() -> Iterator[Kernels]:
    """FlashInfer without a driver; its kernels, and what was asked of them since."""
    from flashinfer.jit.core import JitSpec

    kernels, empty = KERNELS, torch.empty

    def pageable(*size: Any, pin_memory: bool = False, **given: Any) -> torch.Tensor:
        del pin_memory
        return empty(*size, **given)

    kernels.plans, kernels.runs = [], []
    with (
        patch.object(JitSpec, "build_and_load", lambda spec, *_: kernels.load(spec)),
        patch("torch.empty", pageable),
        patch.dict("os.environ", {"FLASHINFER_CUDA_ARCH_LIST": "9.0a"}),
    ):
        yield kernels


def _pack(bits: torch.Tensor, indptr: torch.Tensor, new_indptr: torch.Tensor, order: str, out: torch.Tensor) -> None:
    for at, (first, last) in enumerate(zip(indptr[:-1].tolist(), indptr[1:].tolist(), strict=True)):
        packed = np.packbits(bits[first:last].numpy(), bitorder=order)  # type: ignore[call-overload]
        out[new_indptr[at] : new_indptr[at + 1]] = torch.from_numpy(packed)


def _by_mask(*arguments: Any) -> None:
    """`paged_run` of FlashInfer's own modules."""
    packed, offsets, scale, mode = arguments[16], arguments[17], arguments[25], arguments[12]

    def visible(request: int, queries: int, keys: int) -> np.ndarray:
        if mode != CUSTOM:
            return np.tri(queries, keys, keys - queries, dtype=bool) if mode == CAUSAL else np.ones((queries, keys))
        pair = np.arange(queries * keys)
        mask = packed.numpy()[int(offsets[request]) + pair // 8] >> (pair % 8) & 1
        return mask.astype(bool).reshape(queries, keys)

    _attend(arguments, visible, scale)


def _by_intervals(*arguments: Any) -> None:
    """`paged_run` of the variant, which is told `hidden`, `depth` and the scale."""
    assert arguments[12] == CUSTOM, "in every other mode tiles are skipped, or the variant is not asked"
    hidden, depth, scale = arguments[16:]
    assert hidden.is_contiguous()
    assert hidden.shape == (arguments[3].shape[0], depth, 2)
    q_indptr = arguments[6]

    def visible(request: int, queries: int, keys: int) -> np.ndarray:
        return variant_mask(hidden, q_indptr, request, queries, keys).numpy()

    _attend(arguments, visible, scale)


def _attend(arguments: tuple[Any, ...], visible: Visible, scale: float) -> None:
    """Over pages of one token, in float64."""
    query, key, value, q_indptr, kv_indptr, slots, last_page, out = arguments[3:11]
    assert key.shape[1] == 1
    assert last_page.tolist() == [1] * (len(q_indptr) - 1)
    share = query.shape[1] // key.shape[2]
    for request, (first, last) in enumerate(zip(q_indptr[:-1].tolist(), q_indptr[1:].tolist(), strict=True)):
        at = slots[kv_indptr[request] : kv_indptr[request + 1]].long()
        keys, values = (kv[at, 0].double().repeat_interleave(share, dim=1) for kv in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query[first:last].double(), keys) * scale
        seen = torch.from_numpy(visible(request, last - first, len(at)))
        scores = scores.masked_fill(~seen.bool(), -math.inf)
        out[first:last] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values).to(out.dtype)


SHIM = """
#include <cstdint>
#ifndef __CUDACC__
#define __device__
#define __host__
#endif
namespace math { constexpr float log2e = 1.44269504f; }
struct AttentionVariantBase {};
#define REGISTER_LOGITS_MASK(params, batch, query, key, head, kv_head, ...) \\
  template <typename Params> __device__ __host__ bool LogitsMask(const Params& params, uint32_t batch, \\
      uint32_t query, uint32_t key, uint32_t head, uint32_t kv_head) { __VA_ARGS__ }
"""
DRIVER = """
struct Params {
  const int32_t *hidden, *q_indptr;
  int64_t depth;
  double sm_scale;
  uint32_t queries, keys;
  __device__ __host__ uint32_t get_qo_len(uint32_t) const { return queries; }
  __device__ __host__ uint32_t get_kv_len(uint32_t) const { return keys; }
};
__device__ __host__ void ask(const Params& params, uint32_t batch, uint64_t at, bool* out) {
  VARIANT variant(params, batch, nullptr);
  out[at] = variant.LogitsMask(params, batch, uint32_t(at / params.keys), uint32_t(at % params.keys), 0u, 0u);
}
#ifdef __CUDACC__
__global__ void ask_all(Params params, uint32_t batch, bool* out) {
  uint64_t at = blockIdx.x * uint64_t(blockDim.x) + threadIdx.x;
  if (at < uint64_t(params.queries) * params.keys) ask(params, batch, at, out);
}
#endif
extern "C" int mask(const int32_t* hidden, const int32_t* q_indptr, uint32_t batch, uint32_t queries, uint32_t keys,
                    int64_t depth, bool* out) {
  Params params{hidden, q_indptr, depth, 1.0, queries, keys};
  const uint64_t pairs = uint64_t(queries) * keys;
#ifdef __CUDACC__
  ask_all<<<unsigned((pairs + 255) / 256), 256>>>(params, batch, out);
  return int(cudaDeviceSynchronize());
#else
  for (uint64_t at = 0; at < pairs; ++at) ask(params, batch, at, out);
  return 0;
#endif
}
"""


def variant_mask(hidden: torch.Tensor, q_indptr: torch.Tensor, request: int, queries: int, keys: int) -> torch.Tensor:
    """What the declaration of the variant says, compiled for the device of its arguments: `[queries, keys]`."""
    seen = torch.zeros(queries, keys, dtype=torch.bool, device=hidden.device)
    pointers = (hidden.data_ptr(), q_indptr.data_ptr(), request, queries, keys, hidden.shape[1], seen.data_ptr())
    assert _variant(hidden.device.type).mask(*pointers) == 0
    return seen


@cache
def _variant(device: str) -> ctypes.CDLL:
    folder = Path(mkdtemp())
    source, library = folder / "variant.cu", folder / "variant.so"
    source.write_text(SHIM + DECLARATION + DRIVER.replace("VARIANT", NAME))
    host, cuda = ["g++", "-x", "c++", "-std=c++17", "-O1", "-fPIC"], ["nvcc", "-std=c++17", "-Xcompiler", "-fPIC"]
    compiler = cuda if device == "cuda" else host
    subprocess.run([*compiler, "-shared", str(source), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.mask.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_uint32] * 3, ctypes.c_int64, ctypes.c_void_p]
    return loaded
