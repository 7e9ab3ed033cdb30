"""Do a host's compiled operators load beside this torch, and compute what torch does? `operators.py vllm|sglang`.

On a CPU, those of vLLM for CPUs, but for attention. SGLang compiles some at its first forward; here all that the suites
use, side by side, so that its engines find them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention, silu

DEVICE = os.environ.get("MULTIVERSE_TEST_DEVICE", "cuda")
HALF = torch.bfloat16
NEAR = {torch.float32: 1e-4, HALF: 8e-2}
COMPILED = {
    "rope": "from sglang.kernels.ops.attention import rope as m; m._jit_fused_rope_module(True, 64, {dtype}, {dtype})",
    "activation": "from sglang.kernels.ops.activation.activation import activation_module as m; m({dtype})",
    "store": "from sglang.kernels.ops.kvcache.kvcache import can_use_store_cache as m; assert m({row}, {row})",
    "clamp": "from sglang.kernels.ops.attention.clamp_position import _jit_clamp_position_module as m; m(torch.int64)",
    "norm": "from sglang.kernels.ops.layernorm.norm import can_use_fused_inplace_qknorm as m; "
    "assert m(64, torch.bfloat16)",
}
VARIANTS = ({"dtype": "torch.float32", "row": "512"}, {"dtype": "torch.bfloat16", "row": "2048"})


def near(name: str, found: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> None:
    """Say by how much it is off.

    Raises:
        AssertionError: if that is too much.
    """
    off = (found.float() - wanted.float()).abs().max().item()
    print(f"FIGURE {name} {off:.2e}", flush=True)
    assert off < tolerance, name


def scaled(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x.float() * (x.float().pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * weight.float()


def random(*shape: int, dtype: torch.dtype = HALF) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype)


def vllm_pointwise(dtype: torch.dtype) -> None:
    from vllm import _custom_ops as ops

    x, weight = random(33, 192, dtype=dtype), random(192, dtype=dtype)
    out = torch.empty_like(x)
    ops.rms_norm(out, x, weight, 1e-6)
    near(f"rms_norm:{dtype}", out, scaled(x, weight), NEAR[dtype])
    pair = random(7, 512, dtype=dtype)
    out = torch.empty(7, 256, device=DEVICE, dtype=dtype)
    torch.ops._C.silu_and_mul(out, pair)
    near(f"silu_and_mul:{dtype}", out, silu(pair[:, :256].float()) * pair[:, 256:].float(), NEAR[dtype])


def vllm_rope(dtype: torch.dtype) -> None:
    from vllm import _custom_ops as ops

    positions = torch.randint(0, 999, (9,), device=DEVICE)
    query, key = random(9, 256, dtype=dtype), random(9, 128, dtype=dtype)
    angles = torch.arange(1000, device=DEVICE).float()[:, None] * 0.01 ** (torch.arange(32, device=DEVICE) / 32)
    table = torch.cat((angles.cos(), angles.sin()), 1).to(dtype)
    left, right = query.view(9, 4, 64).float().chunk(2, -1)
    cos, sin = table[positions].float()[:, None].chunk(2, -1)
    wanted = torch.cat((left * cos - right * sin, right * cos + left * sin), -1).view(9, 256)
    ops.rotary_embedding(positions, query, key, 64, table, True)
    near(f"rotary_embedding:{dtype}", query, wanted, NEAR[dtype])


def vllm_attention() -> None:
    """FlashAttention 3 over pages: requests of 5 and 1 new tokens; KV written by vLLM's own writer."""
    import vllm.vllm_flash_attn.flash_attn_interface as flash
    from vllm import _custom_ops as ops

    kv, dim, block = 2, 64, 32
    cache = torch.zeros(16, kv, block, 2 * dim, device=DEVICE, dtype=HALF)
    keys, values = cache.transpose(1, 2).split(dim, dim=-1)
    new, lengths = [5, 1], torch.tensor([70, 33], device=DEVICE, dtype=torch.int32)
    table = torch.tensor([[3, 7, 1], [9, 2, 0]], device=DEVICE, dtype=torch.int32)
    one, written = torch.ones(1, device=DEVICE), []
    for row, length in enumerate(lengths.tolist()):
        key, value = random(2, length, kv, dim)
        at = torch.arange(length, device=DEVICE)
        slots = table[row].long()[at // block] * block + at % block
        ops.reshape_and_cache_flash(key, value, keys, values, slots, "auto", one, one)
        written.append((key, value))
    query, starts = random(6, 2 * kv, dim), torch.tensor([0, 5, 6], device=DEVICE, dtype=torch.int32)
    more: dict[str, Any] = {"seqused_k": lengths, "block_table": table, "causal": True, "fa_version": 3}
    found = flash.flash_attn_varlen_func(query, keys, values, 5, starts, 70, **more)
    for start, count, (key, value) in zip((0, 5), new, written, strict=True):
        length = len(key)
        seen = torch.arange(length, device=DEVICE) <= torch.arange(length - count, length, device=DEVICE)[:, None]
        q, k, v = (x.float().transpose(0, 1) for x in (query[start : start + count], key, value))
        k, v = k.repeat_interleave(2, 0), v.repeat_interleave(2, 0)
        wanted = scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(0, 1)
        near(f"flash_attention_3:{length}", found[start : start + count], wanted, 3e-2)


def sglang_norm() -> None:
    import sgl_kernel

    x, weight = random(8, 192, dtype=torch.float32), random(192, dtype=torch.float32)
    near("rmsnorm", sgl_kernel.rmsnorm(x, weight, 1e-6), scaled(x, weight), NEAR[torch.float32])


def sglang_compiled() -> None:
    programs = {code.format(**variant) for code in COMPILED.values() for variant in VARIANTS}
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(lambda code: _program(f"import torch; {code}"), sorted(programs)))
    print(f"FIGURE compiled {ended.count(0)}", flush=True)
    assert not any(ended), f"{len(ended) - ended.count(0)} did not compile"


def _program(code: str) -> int:
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if ended.returncode:
        print(code, ended.stderr[-2000:], sep="\n", flush=True)
    return ended.returncode


CHECKS: dict[str, list[Callable[[], None]]] = {
    "vllm": [
        *(lambda dtype=dtype, check=check: check(dtype) for dtype in NEAR for check in (vllm_pointwise, vllm_rope)),
        *([vllm_attention] if DEVICE == "cuda" else []),
    ],
    "sglang": [sglang_norm, sglang_compiled],
}


def main(host: str) -> int:
    failed = 0
    for check in CHECKS[host]:
        try:
            check()
            if DEVICE == "cuda":
                torch.cuda.synchronize()
        except Exception:  # the next one may work
            traceback.print_exc()
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
