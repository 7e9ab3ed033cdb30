"""The dense mask and the position tensor are views of one layout."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from slow import Slow
from strategies import dialects, separators, trees
from toy import BINDINGS, block, encode

from multiverse import Layout, layout, parse_ids
from multiverse.attention import dense_mask, positions

torch.set_num_threads(1)


def laid(text: str) -> Layout:
    return layout(parse_ids(encode(text), BINDINGS["multiverse"]))


@given(st.data(), dialects, separators)
def test_mask_and_positions_are_the_slow_definition(data: st.DataObject, dialect: str, setting: str) -> None:
    """Row t, column s is true exactly where SEMANTICS 2 lets t see s."""
    tree = parse_ids(encode("a" + data.draw(trees(dialect)), dialect), BINDINGS[dialect])
    fast, slow = layout(tree, setting), Slow(tree, setting)
    assert torch.equal(dense_mask(fast), torch.tensor(slow.visible))
    assert torch.equal(positions(fast), torch.tensor(slow.positions))


def test_plain_text_gets_the_causal_mask() -> None:
    mask = dense_mask(laid("abcd"))
    assert mask.dtype is torch.bool
    assert torch.equal(mask, torch.ones(4, 4, dtype=torch.bool).tril())
    assert positions(laid("abcd")).tolist() == [0, 1, 2, 3]


def test_in_a_batch_each_row_is_as_it_would_be_alone() -> None:
    """Shape [batch, 1, n, n], what transformers takes; one head dimension, padded to the longest."""
    alone = [laid("ab" + block("c", "d")), laid("abc"), laid(block("a", "b", "c"))]
    n = max(one.length for one in alone)
    masks, ids = dense_mask(alone), positions(alone)
    assert masks.shape == (3, 1, n, n)
    assert ids.shape == (3, n)
    assert ids.dtype is torch.int64
    for one, mask, row in zip(alone, masks[:, 0], ids, strict=True):
        assert torch.equal(mask[: one.length, : one.length], dense_mask(one))
        assert torch.equal(row[: one.length], positions(one))


def test_a_padding_token_sees_only_itself_and_nobody_sees_it() -> None:
    """So that no row of the softmax is empty and nothing leaks."""
    mask = dense_mask([laid("abc")], length=5)[0, 0]
    assert mask.shape == (5, 5)
    assert torch.equal(mask[3:], torch.eye(5, dtype=torch.bool)[3:])
    assert not mask[:3, 3:].any()
    assert positions(laid("abc"), length=5).tolist() == [0, 1, 2, 0, 0]


def test_every_token_sees_itself() -> None:
    assert dense_mask(laid(block("a", block("b", "c"), "d")), length=200).diagonal().all()
