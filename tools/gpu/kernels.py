"""Attention kernels against float64: `kernels.py mask|intervals|triton|cascade|variant|times --device cuda|cpu`.

Needs torch, and what each check names; no pytest. On a CPU FlashInfer's kernels are stood in for, and Triton's are
interpreted, which tries this script and nothing else.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/attention")]
TRITON = Path(sys.prefix, "triton")
if "cpu" in sys.argv and TRITON.is_dir():
    os.environ["TRITON_INTERPRET"] = "1"
    sys.path.insert(0, str(TRITON))

import flashinfer_stub  # noqa: E402
import torch  # noqa: E402
from toy import BINDINGS, block, encode  # noqa: E402

from multiverse import Layout, layout, parse_ids  # noqa: E402
from multiverse.attention import custom_mask, dense_mask, hidden_of, interval_variant, queries  # noqa: E402
from multiverse.attention.shared_prefix import Group, attend, plan  # noqa: E402

HEADS, KV_HEADS, WIDTH = 32, 8, 128
TOLERANCE = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 2e-5}
Batch = list[tuple[Layout, int, int]]


def document(rng: Random, tokens: int) -> Layout:
    """Blocks of up to eight paths, one of them with a block of its own, with text between."""
    text = "a" * rng.randint(1, 40)
    while len(text) < tokens:
        paths = ["b" * rng.randint(1, max(2, tokens // 10)) for _ in range(rng.randint(2, 8))]
        paths[0] += block("c" * rng.randint(1, 30), "d" * rng.randint(1, 30), prefix="1.")
        text += block(*paths, conclusion="e" * rng.randint(1, 30)) + "f" * rng.randint(1, 60)
    return layout(parse_ids(encode(text), BINDINGS["multiverse"]))


def batches(device: str) -> list[Batch]:
    """Alone and together, cached and cut anywhere."""
    rng, found = Random(5), []
    for sizes in ((60,), (60, 30, 90)) if device == "cpu" else ((900,), (300, 2000, 700), (4000,)):
        one = [document(rng, size) for size in sizes]
        found.append([(it, 0, it.length) for it in one])
        cut = [(it, rng.randrange(it.length // 2), rng.randint(it.length // 2 + 1, it.length)) for it in one]
        found.append(cut)
    return found


def tables(batch: Batch, slots: int, device: str) -> list[torch.Tensor]:
    """`qo_indptr`, then the pages of a paged cache, as SGLang plans: of one token, anywhere in the pool."""
    ends = torch.tensor([0, *(end for _, _, end in batch)])
    counts = torch.tensor([0, *(end - start for _, start, end in batch)])
    pages = torch.randperm(slots)[: int(ends.sum())]
    last = torch.ones(len(batch))
    return [x.to(device, torch.int32) for x in (counts.cumsum(0), ends.cumsum(0), pages, last)]


def masked(batch: Batch, pages: torch.Tensor, query: torch.Tensor, kv: torch.Tensor, scale: float) -> torch.Tensor:
    """Attention by the dense mask in float64, head by head: whole, it would not fit."""
    rows, at, slot = [], 0, 0
    share = query.shape[1] // kv.shape[2]
    for one, start, end in batch:
        mask = dense_mask(one)[start:end, :end].to(query.device)
        keys, values = kv[:, pages[slot : slot + end].long()].double()
        part = query[at : at + end - start].double()
        heads = []
        for head in range(query.shape[1]):
            scores = (part[:, head] @ keys[:, head // share].T * scale).masked_fill(~mask, -torch.inf)
            heads.append(scores.softmax(-1) @ values[:, head // share])
        rows.append(torch.stack(heads, 1))
        at, slot = at + end - start, slot + end
    return torch.cat(rows)


def on(device: str) -> AbstractContextManager[Any]:
    return flashinfer_stub.on_cpu() if device == "cpu" else nullcontext()


def wrapper(device: str, dtype: torch.dtype, intervals: bool) -> Any:
    import flashinfer

    more: dict[str, Any] = {}
    if intervals:
        more = {"jit_args": interval_variant.jit_arguments(dtype, dtype, WIDTH), "variant_owns_mask": True}
        more["jit_kwargs"] = interval_variant.OPTIONS
    space = torch.empty(256 << 20 if device == "cuda" else 1 << 20, dtype=torch.uint8, device=device)
    return flashinfer.BatchPrefillWithPagedKVCacheWrapper(space, "NHD", backend="fa2", **more)


def masks(device: str, intervals: bool) -> None:
    """FlashInfer's prefill with masks in either form."""
    heads, kv_heads, slots = (4, 2, 4096) if device == "cpu" else (HEADS, KV_HEADS, 65_536)
    worst = 0.0
    for dtype in (torch.float16,) if device == "cpu" else (torch.bfloat16, torch.float16):
        with on(device):
            made = wrapper(device, dtype, intervals)
            for batch in batches(device):
                indptr, *paged = tables(batch, slots, device)
                query = torch.randn(int(indptr[-1]), heads, WIDTH, device=device).to(dtype)
                kv = torch.randn(2, slots, kv_heads, WIDTH, device=device).to(dtype)
                computed = [queries(*one) for one in batch]
                mask = None if intervals else custom_mask(computed, device)
                types = {"q_data_type": dtype, "kv_data_type": dtype}
                made.plan(indptr, *paged, heads, kv_heads, WIDTH, 1, custom_mask=mask, sm_scale=0.1, **types)
                hidden = hidden_of([part for one in computed for part in one]).to(device)
                more = (hidden, hidden.shape[1], 0.1) if intervals else ()
                found = made.run(query, (kv[0], kv[1]), *more)
                worst = max(worst, difference(found, masked(batch, paged[1], query, kv, 0.1), TOLERANCE[dtype]))
    print(f"FIGURE max_difference {worst}")


def difference(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> float:
    worst = float((found.double() - expected).abs().max())
    assert worst < tolerance, f"{worst} is more than {tolerance}"
    return worst


def shared(device: str, kind: str) -> None:
    """A decode step of branches, nested ones among them, by our kernels or by FlashInfer's cascade."""
    heads, kv_heads, width, prefix = (4, 2, 64, 200) if device == "cpu" else (HEADS, KV_HEADS, WIDTH, 6000)
    dtype = torch.float16 if device == "cpu" else torch.bfloat16
    rng = Random(6)
    rows = 20
    lengths = [prefix + 40 + rng.randrange(0, 90) for _ in range(rows)]
    groups = [Group(tuple(range(16)), prefix), Group((3, 4, 5), prefix + 30)]
    slots = sum(lengths)
    table = torch.randint(slots, (rows, max(lengths)))
    for group in groups:
        table[list(group.rows), : group.length] = table[group.rows[0], : group.length].clone()
    query = torch.randn(rows, heads, width, device=device).to(dtype)
    key, value = torch.randn(2, slots, kv_heads, width, device=device).to(dtype)
    passes = plan(lengths, groups)
    seen = [row[:length].to(device) for row, length in zip(table, lengths, strict=True)]
    expected = attend(query.double(), key.double(), value.double(), seen, plan(lengths), 0.1)
    engine = _engine(kind, heads, kv_heads, width, dtype, device)
    engine.prepare(passes, table.int().to(device), torch.arange(rows, device=device), rows)
    print(f"FIGURE max_difference {difference(engine(query, key, value, 0.1), expected, TOLERANCE[dtype])}")


def _engine(kind: str, heads: int, kv_heads: int, width: int, dtype: torch.dtype, device: str) -> Any:
    if kind == "triton":
        from multiverse.attention.triton_decode import TritonAttention

        return TritonAttention(heads, kv_heads)
    from multiverse.attention.cascade import CascadeAttention

    return CascadeAttention(heads, kv_heads, width, 0.1, dtype, device)


def variant(device: str) -> None:
    """The mask of the interval variant, compiled by nvcc, or on a CPU by g++."""
    pairs = 0
    for batch in batches(device):
        hidden = hidden_of([part for one in batch for part in queries(*one)]).to(device)
        indptr = tables(batch, 65_536, device)[0]
        for request, (one, start, end) in enumerate(batch):
            seen = flashinfer_stub.variant_mask(hidden, indptr, request, end - start, end)
            assert torch.equal(seen.cpu(), dense_mask(one)[start:end, :end])
            pairs += seen.numel()
    print(f"FIGURE pairs {pairs}")


def times(device: str) -> None:
    """Causal, with a mask in either form, and by segments: medians of CUDA events."""
    heads, kv_heads = (4, 2) if device == "cpu" else (HEADS, KV_HEADS)
    dtype = torch.float16 if device == "cpu" else torch.bfloat16
    for tokens in (60,) if device == "cpu" else (4096, 16_384, 32_768):
        one = document(Random(7), tokens)
        computed, slots = [queries(one)], one.length
        query = torch.randn(slots, heads, WIDTH, device=device).to(dtype)
        kv = tuple(torch.randn(2, slots, kv_heads, WIDTH, device=device).to(dtype))
        with on(device):
            plain, own = (wrapper(device, dtype, intervals) for intervals in (False, True))
            whole = tables([(one, 0, slots)], slots, device)
            hidden = hidden_of(computed[0]).to(device)
            runs: dict[str, tuple[Any, list[torch.Tensor], torch.Tensor | None, Sequence[Any]]] = {
                "causal": (plain, whole, None, ()),
                "segments": (plain, _segments(one, whole[2]), None, ()),
                "intervals": (own, whole, None, (hidden, hidden.shape[1], 0.1)),
            }
            if slots**2 <= 1 << 30:
                runs["mask"] = (plain, whole, custom_mask(computed, device), ())
            for name, (made, arguments, mask, more) in runs.items():
                types = {"q_data_type": dtype, "kv_data_type": dtype}
                made.plan(*arguments, heads, kv_heads, WIDTH, 1, custom_mask=mask, causal=mask is None, **types)
                took = clock(partial(made.run, query, kv, *more), device)
                print(f"FIGURE {name}_{tokens}_ms {took}")


def _segments(one: Layout, pages: torch.Tensor) -> list[torch.Tensor]:
    """As `multiverse_sglang.attention.segments` shows them: each with the slots it sees."""
    seen = [torch.cat([torch.arange(a, b) for a, b in (*s.visible(), (s.start, s.end))]) for s in one.segments]
    counts = torch.tensor([0, *(s.end - s.start for s in one.segments)]).cumsum(0)
    ends = torch.tensor([0, *map(len, seen)]).cumsum(0)
    found = (counts, ends, pages.cpu()[torch.cat(seen)], torch.ones(len(seen)))
    return [x.to(pages.device, torch.int32) for x in found]


def clock(run: Any, device: str) -> float:
    """Milliseconds, the median of seven."""
    import time

    found = []
    for _ in range(9 if device == "cuda" else 1):
        begun = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append(1000 * (time.perf_counter() - begun))
    return sorted(found[2:] or found)[len(found[2:] or found) // 2]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("check", choices=("mask", "intervals", "triton", "cascade", "variant", "times"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args()
    torch.manual_seed(0)
    name, where = options.check, options.device
    if name in ("mask", "intervals"):
        masks(where, name == "intervals")
    elif name in ("triton", "cascade"):
        shared(where, name)
    else:
        {"variant": variant, "times": times}[name](where)
