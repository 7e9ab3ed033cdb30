"""FlashInfer's cascade, planned for our passes: its own wrapper, whose two kernels are stood in for on the CPU."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from test_shared_prefix import SCALE, WIDTH, forests, table_of, tensors

from multiverse.attention.cascade import CascadeAttention, levels
from multiverse.attention.shared_prefix import Group, attend, kv_tokens, plan

SOURCE = Path(str(metadata.distribution("flashinfer-python").locate_file("flashinfer")))
"""Importing it needs CUDA libraries, so the class is taken out of its module."""


class PagedPrefill:
    """What `BatchPrefillWithPagedKVCacheWrapper` is documented to compute, for pages of one slot and no mask."""

    def __init__(self, workspace: torch.Tensor, layout: str) -> None:
        assert workspace.dtype == torch.uint8
        assert layout == "NHD"

    def plan(
        self, qo: Any, kv: Any, slots: Any, last: Any, heads: int, kv_heads: int, width: int, page: int, **more: Any
    ) -> None:
        assert all(some.dtype == torch.int32 for some in (qo, kv, slots, last))
        assert (len(qo), len(last), int(kv[-1]), page) == (len(kv), len(kv) - 1, len(slots), 1)
        assert not more["causal"]
        self.entries, self.slots, self.scale, self.shape = (
            (qo, kv),
            slots.long(),
            more["sm_scale"],
            (heads, kv_heads, width),
        )

    def run(self, query: torch.Tensor, paged: Any, return_lse: bool) -> tuple[torch.Tensor, torch.Tensor]:
        assert return_lse
        assert query.shape[1:] == (self.shape[0], self.shape[2])
        share = self.shape[0] // self.shape[1]
        key, value = (cache[self.slots, 0].repeat_interleave(share, 1) for cache in paged)
        scores = torch.einsum("qhd,khd->qhk", query, key) * self.scale
        (qo, kv), at = self.entries, torch.arange(len(query))
        entry = torch.searchsorted(qo, at, right=True) - 1
        slot = torch.arange(len(self.slots))
        hidden = (slot < kv[entry, None]) | (slot >= kv[entry + 1, None])
        scores = scores.masked_fill(hidden[:, None], -torch.inf)
        return torch.einsum("qhk,khd->qhd", scores.softmax(-1).nan_to_num(), value), scores.logsumexp(-1)


def merge_in_place(out: torch.Tensor, lse: torch.Tensor, other: torch.Tensor, other_lse: torch.Tensor) -> None:
    both = torch.logaddexp(lse, other_lse)
    out.copy_(out * (lse - both).exp()[..., None] + other * (other_lse - both).exp()[..., None])
    lse.copy_(both)


@pytest.fixture(scope="module")
def cascade() -> Iterator[None]:
    """The installed `flashinfer.cascade`, as far as its multi-level wrapper goes."""
    module, source = ModuleType("flashinfer.cascade"), (SOURCE / "cascade.py").read_text()
    vars(module).update(
        BatchPrefillWithPagedKVCacheWrapper=PagedPrefill,
        merge_state_in_place=merge_in_place,
        multi_level_cascade_run_trace=None,
        flashinfer_api=lambda function=None, **_: function or (lambda decorated: decorated),
    )
    exec("from typing import *\nimport torch", vars(module))
    exec(class_of(source, "MultiLevelCascadeAttentionWrapper")[1], vars(module))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "flashinfer", ModuleType("flashinfer"))
        patch.setitem(sys.modules, "flashinfer.cascade", module)
        yield


def class_of(source: str, name: str) -> tuple[ast.ClassDef, str]:
    (node,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name)
    return node, ast.get_source_segment(source, node) or ""


def test_the_stand_in_is_called_as_the_wrapper_it_stands_for() -> None:
    node, _ = class_of((SOURCE / "prefill.py").read_text(), "BatchPrefillWithPagedKVCacheWrapper")
    plans = [some for some in node.body if isinstance(some, ast.FunctionDef) and some.name == "plan"]
    names = [argument.arg for argument in plans[-1].args.args]
    assert names[1:9] == [
        "qo_indptr", "paged_kv_indptr", "paged_kv_indices", "paged_kv_last_page_len",
        "num_qo_heads", "num_kv_heads", "head_dim_qk", "page_size",
    ]  # fmt: skip
    assert {"causal", "sm_scale", "q_data_type", "kv_data_type"} <= set(names)


@pytest.mark.usefixtures("cascade")
@settings(deadline=None)
@given(forests())
def test_flashinfers_cascade_is_planned_for_what_the_passes_say(forest: tuple[list[list[int]], list[Group]]) -> None:
    rows, groups = forest
    query, key, value = tensors(len(rows), 2, 3, torch.float64)
    passes = plan([len(row) for row in rows], groups)
    expected = attend(query, key, value, [torch.tensor(row) for row in rows], passes, SCALE)
    engine = CascadeAttention(6, 2, WIDTH, SCALE, torch.float64, "cpu")
    engine.prepare(passes, table_of(rows), torch.arange(len(rows)), len(rows))
    assert torch.allclose(engine(query, key, value, SCALE), expected, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(forests())
def test_levels_read_what_the_plan_reads(forest: tuple[list[list[int]], list[Group]]) -> None:
    rows, groups = forest
    passes = plan([len(row) for row in rows], groups)
    order, found = levels(passes, len(rows))
    assert sorted(order) == list(range(len(rows)))
    assert all(sum(level.queries) == len(rows) for level in found)
    read = sum(stop - start for level in found for start, stop in zip(level.starts, level.stops, strict=True))
    assert read == kv_tokens(passes)
