"""Intervals, block mask and FlashInfer arguments say what the dense mask says, bit by bit."""

from __future__ import annotations

import ast
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import dialects, separators, trees
from tiers import sizes
from torch.nn.attention.flex_attention import create_block_mask
from toy import BINDINGS, block, encode

from multiverse import Layout, UnsupportedModelError, layout, parse_ids
from multiverse.attention import batch_arguments, block_mask, dense_mask, hidden_intervals, single_arguments
from multiverse.structure.layout import Segment
from multiverse.training.packing import concatenate

torch.set_num_threads(1)


def laid(text: str, dialect: str = "multiverse", setting: str = "overlap") -> Layout:
    return layout(parse_ids(encode(text, dialect), BINDINGS[dialect]), setting)


def long(tokens: int) -> Layout:
    """A layout of about that size: blocks of four paths, one of them nested, with text between."""
    path = "abcd" * 50
    return laid((block(path, path, block(path, path, prefix="3."), path) + path) * (tokens // 1300))


@given(st.data(), dialects, separators)
def test_intervals_are_the_mask(data: st.DataObject, dialect: str, setting: str) -> None:
    one = laid("a" + data.draw(trees(dialect)), dialect, setting)
    intervals, keys = hidden_intervals(one), torch.arange(one.length)
    hidden = (keys >= intervals[:, :, :1]) & (keys < intervals[:, :, 1:])
    assert torch.equal(~hidden.any(1) & (keys <= keys[:, None]), dense_mask(one))
    assert intervals.shape[1] <= 4 + 1, "as many as levels of nesting"


@settings(max_examples=sizes().examples // 3)
@given(st.data(), dialects, st.sampled_from([16, 32]))
def test_the_block_mask_is_that_of_create_block_mask(data: st.DataObject, dialect: str, size: int) -> None:
    """Same tiles in the same order, whole and partial, and the same pairs in the partial ones."""
    documents = [laid("a" + data.draw(trees(dialect)), dialect) for _ in range(data.draw(st.integers(1, 3)))]
    one = concatenate(documents)
    dense = dense_mask(one)
    built = block_mask(one, block_size=size)
    slow = create_block_mask(lambda _b, _h, q, k: dense[q, k], 1, 1, one.length, one.length, "cpu", BLOCK_SIZE=size)
    assert built.shape == slow.shape
    for counts, columns in (("kv_num_blocks", "kv_indices"), ("full_kv_num_blocks", "full_kv_indices")):
        ours, theirs = getattr(built, counts), getattr(slow, counts)
        assert torch.equal(ours, theirs)
        for row, used in enumerate(ours[0, 0].tolist()):
            found, expected = getattr(built, columns)[0, 0, row, :used], getattr(slow, columns)[0, 0, row, :used]
            assert torch.equal(found, expected)
    q, k = torch.meshgrid(torch.arange(one.length), torch.arange(one.length), indexing="ij")
    assert torch.equal(built.mask_mod(torch.tensor(0), torch.tensor(0), q, k), dense)


@given(st.data(), dialects, st.sampled_from([8, 16, 32]))
def test_the_tile_lists_alone_say_the_dense_mask(data: st.DataObject, dialect: str, size: int) -> None:
    """An uncompiled forward on a CPU (torch 2.13) never reads them: it evaluates `mask_mod` at every pair."""
    one = concatenate([laid("a" + data.draw(trees(dialect)), dialect) for _ in range(data.draw(st.integers(1, 2)))])
    dense, built = dense_mask(one), block_mask(one, block_size=size)
    said = torch.zeros_like(dense)
    for whole, counts, columns in (
        (False, built.kv_num_blocks, built.kv_indices),
        (True, built.full_kv_num_blocks, built.full_kv_indices),
    ):
        for row, used in enumerate(counts[0, 0].tolist()):
            for column in columns[0, 0, row, :used].tolist():
                tile = (slice(row * size, (row + 1) * size), slice(column * size, (column + 1) * size))
                assert not said[tile].any(), "a tile stands in two lists"
                said[tile] = True if whole else dense[tile]
    assert torch.equal(said, dense)


def test_a_block_mask_of_32k_tokens_takes_megabytes() -> None:
    one = long(32_768)
    assert one.length > 32_000
    mask = block_mask(one)
    tensors = (mask.kv_num_blocks, mask.kv_indices, mask.full_kv_num_blocks, mask.full_kv_indices)
    assert sum(t.numel() * t.element_size() for t in tensors) < 2 << 20
    assert hidden_intervals(one).numel() * 4 < 1 << 20
    causal = block_mask(Layout((Segment(0, one.length, 0, (), -1),), one.length, one.length))
    assert mask.sparsity() > causal.sparsity(), "pairs of sibling paths are left out by the tile"


@given(st.data(), dialects)
def test_flashinfer_gets_the_mask_row_by_row_request_by_request(data: st.DataObject, dialect: str) -> None:
    batch = [laid("a" + data.draw(trees(dialect)), dialect) for _ in range(3)]
    cached = [data.draw(st.integers(0, one.length - 1)) for one in batch]
    found = batch_arguments(batch, cached)
    at = 0
    for number, (one, known) in enumerate(zip(batch, cached, strict=True)):
        queries = found["qo_indptr"].diff()[number].item()
        keys = found["kv_indptr"].diff()[number].item()
        assert (queries, keys) == (one.length - known, one.length)
        rows = found["custom_mask"][at : at + queries * keys].view(queries, keys)
        assert torch.equal(rows, dense_mask(one)[known:])
        at += queries * keys
    assert at == found["custom_mask"].numel()
    assert found["qo_indptr"].dtype is found["kv_indptr"].dtype is torch.int32


@given(st.data())
def test_the_packed_mask_has_the_first_pair_in_the_lowest_bit(data: st.DataObject) -> None:
    one = laid("ab" + data.draw(trees()))
    packed = single_arguments(one)["packed_custom_mask"]
    bits = np.unpackbits(packed.numpy(), count=one.length**2, bitorder="little").astype(bool)
    assert np.array_equal(bits.reshape(one.length, -1), dense_mask(one).numpy())
    assert packed.numel() == (one.length**2 + 7) // 8


def test_flashinfer_is_not_given_what_it_would_misread() -> None:
    one = laid(block("a", "b"))
    with pytest.raises(UnsupportedModelError, match="'fa3' takes no mask"):
        batch_arguments([one], backend="fa3")
    huge = Layout((Segment(0, 46_341, 0, (), -1),), 46_341, 46_341)
    with pytest.raises(UnsupportedModelError, match="2147488281 bits"):
        batch_arguments([huge])
    with pytest.raises(ValueError, match=r"request 1: .* tokens are cached"):
        batch_arguments([one, one], [0, one.length])
    with pytest.raises(ValueError, match="2 requests but 1"):
        batch_arguments([one, one], [0])


def test_the_installed_flashinfer_takes_these_arguments() -> None:
    """Read from its source: calling it needs a GPU; what it plans, `test_flashinfer_plan.py` compares."""
    source = Path(str(metadata.distribution("flashinfer-python").locate_file("flashinfer/prefill.py")))
    module = ast.parse(source.read_text())
    classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    plans = {
        name: next(f for f in classes[name].body if isinstance(f, ast.FunctionDef) and f.name == "plan")
        for name in ("BatchPrefillWithRaggedKVCacheWrapper", "BatchPrefillWithPagedKVCacheWrapper")
    }
    ours = set(batch_arguments([laid("ab")]))
    assert ours <= _parameters(plans["BatchPrefillWithRaggedKVCacheWrapper"])
    assert ours - {"kv_indptr"} <= _parameters(plans["BatchPrefillWithPagedKVCacheWrapper"])
    single = [f for f in functions if f.name == "single_prefill_with_kv_cache"][-1]
    assert set(single_arguments(laid("ab"))) <= _parameters(single)


def _parameters(function: ast.FunctionDef) -> set[str]:
    return {argument.arg for argument in function.args.args}
