"""FlashInfer's own host code, given our masks, hands its kernels what the dense mask says: both forms of the mask.

What is compiled is stood in for (`flashinfer_stub.py`), so no kernel of FlashInfer's runs here.
"""

from __future__ import annotations

import shutil
from typing import Any

import flashinfer_stub
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import trees
from tiers import sizes
from toy import BINDINGS, encode

from multiverse import Layout, layout, parse_ids
from multiverse.attention import custom_mask, dense_mask, hidden_of, interval_variant, queries

DTYPE = torch.float16  # FlashInfer has no float32
HEADS, KV_HEADS, WIDTH, SLOTS, SCALE = 4, 2, 16, 8192, 0.3
Batch = list[tuple[Layout, int, int]]
"""Of each request, the tokens `[start, end)` that are computed now."""


@st.composite
def requests(draw: st.DrawFn) -> tuple[Layout, int, int]:
    """Prompts with and without blocks, cached up to anywhere, and chunks that end anywhere."""
    text = "a" + draw(st.one_of(trees(max_depth=3, max_width=6), st.just("plain text")))
    one = layout(parse_ids(encode(text), BINDINGS["multiverse"]))
    start = draw(st.integers(0, one.length - 1))
    return one, start, draw(st.integers(start + 1, one.length))


batches = st.lists(requests(), min_size=1, max_size=3)
few = settings(max_examples=sizes().examples // 2)


def page_tables(batch: Batch) -> dict[str, torch.Tensor]:
    """As SGLang plans: pages of one token, anywhere in the pool."""
    ends = torch.tensor([end for _, _, end in batch], dtype=torch.int32)
    counts = torch.tensor([end - start for _, start, end in batch], dtype=torch.int32)
    return {
        "qo_indptr": torch.nn.functional.pad(counts.cumsum(0, dtype=torch.int32), (1, 0)),
        "paged_kv_indptr": torch.nn.functional.pad(ends.cumsum(0, dtype=torch.int32), (1, 0)),
        "paged_kv_indices": torch.randperm(SLOTS)[: int(ends.sum())].int(),
        "paged_kv_last_page_len": torch.ones(len(batch), dtype=torch.int32),
    }


def expected(batch: Batch, tables: dict[str, torch.Tensor], q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
    """Attention by the dense mask, in float64."""
    rows, at, slot = [], 0, 0
    for one, start, end in batch:
        seen = tables["paged_kv_indices"][slot : slot + end].long()
        keys, values = (x[seen].double().repeat_interleave(HEADS // KV_HEADS, 1).transpose(0, 1) for x in kv)
        query = q[at : at + end - start].double().transpose(0, 1)
        mask = dense_mask(one)[start:end, :end]
        found = torch.nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=SCALE)
        rows.append(found.transpose(0, 1))
        at, slot = at + end - start, slot + end
    return torch.cat(rows)


def tensors(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = sum(end - start for _, start, end in batch)
    return torch.randn(tokens, HEADS, WIDTH).to(DTYPE), torch.randn(2, SLOTS, KV_HEADS, WIDTH).to(DTYPE)


def wrapper(**more: Any) -> Any:
    from flashinfer import BatchPrefillWithPagedKVCacheWrapper

    return BatchPrefillWithPagedKVCacheWrapper(torch.empty(1 << 20, dtype=torch.uint8), "NHD", backend="fa2", **more)


def plan(made: Any, tables: dict[str, torch.Tensor], mask: torch.Tensor | None = None) -> None:
    dtypes = {"q_data_type": DTYPE, "kv_data_type": DTYPE}
    made.plan(*tables.values(), HEADS, KV_HEADS, WIDTH, 1, custom_mask=mask, **dtypes)


def structured(batch: Batch) -> bool:
    return any(one.hidden for request in batch for one in queries(*request))


@few
@given(batches)
def test_a_boolean_mask_arrives_as_the_dense_mask(batch: Batch) -> None:
    tables, (q, kv) = page_tables(batch), tensors(batch)
    with flashinfer_stub.on_cpu() as kernels:
        made = wrapper()
        plan(made, tables, custom_mask([queries(*one) for one in batch]))
        found = made.forward(q, (kv[0], kv[1]), causal=True, sm_scale=SCALE)
    torch.testing.assert_close(found.double(), expected(batch, tables, q, kv), rtol=1e-3, atol=1e-3)
    assert len(kernels.plans) == len(kernels.runs) == 1


@pytest.mark.skipif(shutil.which("g++") is None, reason="the variant's declaration is compiled for the CPU by g++")
@few
@given(batches)
def test_the_interval_variant_says_the_dense_mask(batch: Batch) -> None:
    arguments = interval_variant.jit_arguments(DTYPE, DTYPE, WIDTH)
    hidden = hidden_of([one for request in batch for one in queries(*request)])
    tables, (q, kv) = page_tables(batch), tensors(batch)
    with flashinfer_stub.on_cpu() as kernels:
        made = wrapper(jit_args=arguments, jit_kwargs=interval_variant.OPTIONS, variant_owns_mask=True)
        plan(made, tables)
        found = made.run(q, (kv[0], kv[1]), hidden, hidden.shape[1], SCALE)
    torch.testing.assert_close(found.double(), expected(batch, tables, q, kv), rtol=1e-3, atol=1e-3)
    assert kernels.runs == [arguments[0]]


@few
@given(batches.filter(structured))
def test_without_a_mask_the_stand_in_computes_something_else(batch: Batch) -> None:
    """What the two tests above would not notice if nothing of the mask reached the kernel."""
    tables, (q, kv) = page_tables(batch), tensors(batch)
    with flashinfer_stub.on_cpu():
        made = wrapper()
        plan(made, tables)
        found = made.forward(q, (kv[0], kv[1]), causal=True, sm_scale=SCALE)
    assert float((found.double() - expected(batch, tables, q, kv)).abs().max()) > 3e-3
