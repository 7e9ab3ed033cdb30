"""A token that was moved lies where the backend would have written it, whatever the layout of the cache."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace

import pytest
import torch
from caches import BLOCK, BLOCKS, LAYERS, addresses, layers_of, make_runner, memory, write
from device import ON_CPU
from vllm.v1.attention.backends import cpu_attn
from vllm.v1.attention.ops import triton_reshape_and_cache_flash
from vllm.v1.kv_cache_layout import KVCacheLayout

from multiverse_vllm.plan import Move
from multiverse_vllm.worker.kv_layout import LAYOUTS, KVMover

EVERY_LAYOUT = [layout.name for layout in KVCacheLayout]
SPLIT = [(layout, BLOCK) for layout in EVERY_LAYOUT] + [("LBNHC", 16), ("LBHNC", 16)]
"""Layout and block size of the kernels: vLLM divides its blocks only where each lies in one piece."""


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU backend asks for the data type of the model that is being loaded, Triton's writer for the kind of GPU."""
    if not ON_CPU:
        return
    config = SimpleNamespace(model_config=SimpleNamespace(dtype=torch.float32))
    monkeypatch.setattr(cpu_attn, "get_current_vllm_config", lambda: config)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(triton_reshape_and_cache_flash, "_is_supported_kv_cache_dtype", lambda _: True)


def moves_of(sources: list[int], targets: list[int], block: int = BLOCK) -> list[Move]:
    return [(*divmod(s, block), *divmod(t, block)) for s, t in zip(sources, targets, strict=True)]


@pytest.mark.parametrize(("layout", "kernel_block"), SPLIT)
@pytest.mark.parametrize("backend", [name for name in LAYOUTS if name != "CPU_ATTN"])
@pytest.mark.parametrize("kv_cache_dtype", ["auto", "fp8"])
def test_moves_follow_the_slot_rule_in_every_memory_layout(
    backend: str, layout: str, kernel_block: int, kv_cache_dtype: str
) -> None:
    """Also where kernels use smaller blocks than the scheduler, and where a slot is source and target at once."""
    runner = make_runner(backend, layout, torch.bfloat16, kv_cache_dtype, kernel_block)
    cache = memory(runner)
    cache.copy_(torch.randint(0, 256, cache.shape, dtype=torch.uint8))
    expected = cache.clone()
    rng = Random(layout)
    sources, targets = (rng.sample(range(BLOCKS * BLOCK), 150) for _ in range(2))
    assert set(sources) & set(targets)
    for layer in range(LAYERS):
        for source, target in zip(sources, targets, strict=True):
            there, here = (addresses(runner, layout, kernel_block, layer, slot) for slot in (target, source))
            expected[there] = cache[here]
    KVMover(runner).move(moves_of(sources, targets))
    assert torch.equal(cache, expected)


needs_fp8 = pytest.mark.skipif(  # vLLM asks the same
    not (torch.cpu._is_avx512_supported() or torch.cpu._is_amx_tile_supported()),
    reason="vLLM itself refuses an FP8 cache on a processor with neither AVX-512 nor AMX",
)
CPU = [
    pytest.param("CPU_ATTN", "LBHNC", *case, id="-".join(map(str, ("CPU_ATTN", *case))), marks=marks)
    for *case, marks in [
        (torch.float32, "auto", 32, 32, ()),  # the instruction sets: vec, vec16, amx
        (torch.float32, "auto", 80, 32, ()),
        (torch.bfloat16, "auto", 64, 64, ()),
        (torch.bfloat16, "auto", 80, 32, ()),
        (torch.bfloat16, "fp8", 64, 32, needs_fp8),
        (torch.bfloat16, "fp8_e5m2", 64, 32, needs_fp8),
        (torch.float32, "fp8_e4m3", 32, 64, needs_fp8),
    ]
]
TRITON = [
    pytest.param("TRITON_ATTN", layout, torch.float32, kind, 32, 32, id=f"TRITON_ATTN-{layout}-{kind}")
    for layout in EVERY_LAYOUT
    for kind in ("auto", "fp8", "int8_per_token_head", "fp8_per_token_head", "int4_per_token_head")
    if kind == "auto" or layout == "LBNHC" or (kind == "int8_per_token_head" and layout == "BLHNC")
]

FLASH = [
    pytest.param("FLASH_ATTN", layout, torch.bfloat16, "auto", 64, 32, id=f"FLASH_ATTN-{layout}")
    for layout in EVERY_LAYOUT
]
"""Its writer exists on CUDA only."""
WRITERS = CPU + TRITON if ON_CPU else TRITON + FLASH


@pytest.mark.parametrize(("backend", "layout", "dtype", "kv_cache_dtype", "dim", "block"), WRITERS)
def test_a_moved_token_is_as_if_the_backends_own_writer_had_put_it_there(
    backend: str, layout: str, dtype: torch.dtype, kv_cache_dtype: str, dim: int, block: int
) -> None:
    moved, written = (make_runner(backend, layout, dtype, kv_cache_dtype, block, dim=dim, block=block) for _ in "ab")
    sources, targets = list(range(24, 40)), [5 * block + 7 - i for i in range(16)]
    mover = KVMover(moved)
    write(moved, sources, seed=1)
    write(moved, targets, seed=2)
    before = memory(moved).clone()
    mover.move(moves_of(sources, targets, block))
    write(written, sources, seed=1)
    write(written, targets, seed=1)
    assert torch.equal(memory(moved), memory(written))
    assert not torch.equal(memory(moved), before)


def test_a_cache_of_floats_of_eight_bits_moves_as_bytes() -> None:
    """All 256 patterns, not-a-number among them."""
    runner = make_runner("FLASH_ATTN", "LBNHC", torch.bfloat16, "fp8")
    for layer in layers_of(runner):
        layer.kv_cache = layer.kv_cache.view(torch.float8_e4m3fn)
    cache = memory(runner)
    cache.copy_(torch.arange(cache.numel()) % 256 ^ torch.arange(cache.numel()) // 256 % 256)
    token = addresses(runner, "LBNHC", BLOCK, 1, 70)
    expected = cache[addresses(runner, "LBNHC", BLOCK, 1, 7)]
    KVMover(runner).move([(0, 7, 1, 6)])
    assert torch.equal(cache[token], expected)


@pytest.mark.skipif(not ON_CPU, reason="vLLM for GPUs has no writer of the CPU backend")
def test_the_writer_of_the_cpu_backend_packs_so_that_a_plain_copy_would_be_wrong() -> None:
    """Else the tests above would say nothing about probing."""
    runner = make_runner("CPU_ATTN", "LBHNC")
    write(runner, [1], seed=1)
    touched = layers_of(runner)[0].kv_cache[0, 0].nonzero()[:, 0]
    assert set(touched.tolist()) != {1}


def test_layers_that_share_a_cache_are_moved_once() -> None:
    runner = make_runner("FLASH_ATTN")
    first, second = layers_of(runner)
    second.kv_cache = first.kv_cache
    first.kv_cache[0, :, :2] = torch.tensor([1.0, 2.0])[:, None]
    KVMover(runner).move([(0, 0, 0, 1), (0, 1, 0, 0)])
    assert first.kv_cache[0, 0, :2, 0].tolist() == [2.0, 1.0]
