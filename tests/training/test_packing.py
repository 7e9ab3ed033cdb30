"""Examples in one row don't see each other and are learnt exactly as they would be apart."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import encoder, example, model
from strategies import trees
from torch.nn.attention.flex_attention import BlockMask
from toy import BINDINGS, encode

from multiverse import layout, parse_ids
from multiverse.attention import dense_mask, positions
from multiverse.structure.layout import Layout, Segment
from multiverse.training.collator import collate
from multiverse.training.encode import IGNORE, Encoded
from multiverse.training.packing import concatenate, join, pack, pack_in_order


@given(st.data())
def test_a_concatenated_layout_is_its_documents_side_by_side(data: st.DataObject) -> None:
    texts = data.draw(st.lists(trees(max_width=4), min_size=1, max_size=4))
    documents = [layout(parse_ids(encode("a" + text), BINDINGS["multiverse"])) for text in texts]
    whole = concatenate(documents)
    assert torch.equal(dense_mask(whole), torch.block_diag(*map(dense_mask, documents)).bool())
    assert torch.equal(positions(whole), torch.cat([positions(document) for document in documents]))
    base, expected = 0, []
    for document in documents:
        expected += [before + base if before >= 0 else -1 for before in document.predecessors]
        base += document.length
    assert whole.predecessors == expected


def blank(length: int) -> Encoded:
    return Encoded([0] * length, [IGNORE] * length, Layout((Segment(0, length, 0, (), -1),), length, length))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(40, 90), st.integers(0, 5))
def test_packing_loses_nothing_and_overfills_nothing(lengths: list[int], room: int, seed: int) -> None:
    rows = pack([blank(length) for length in lengths], room, Random(seed))
    assert max(map(len, rows)) <= room
    assert sum(map(len, rows)) == sum(lengths)
    documents = [sum(segment.position == 0 for segment in row.layout.segments) for row in rows]
    assert sum(documents) == len(lengths)
    assert sum(len(row) * 2 <= room for row in rows) <= 1, "two half-empty rows would have been one"


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(40, 90))
def test_packed_in_order_neighbours_share_a_row_until_it_is_full(lengths: list[int], room: int) -> None:
    rows = pack_in_order([Encoded([n] * n, [IGNORE] * n, blank(n).layout) for n in lengths], room)
    assert [token for row in rows for token in row.ids] == [n for n in lengths for _ in range(n)]
    assert max(map(len, rows)) <= room
    assert all(len(row) + after.ids[0] > room for row, after in pairwise(rows))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_packed_row_has_the_loss_and_the_gradients_of_its_examples_apart(attention: str) -> None:
    lm = model()
    lm.set_attn_implementation(attention)
    examples = [
        encoder().encode(example("one", "two three")),
        encoder().encode(example("a b", "c", "d"), parallel=False),
        encoder().encode(example("four five", "six", "seven")),
    ]
    count = torch.tensor(sum(target != IGNORE for one in examples for target in one.targets))

    def losses(rows: list[Encoded]) -> tuple[float, list[torch.Tensor]]:
        lm.zero_grad()
        total = 0.0
        for row in rows:
            loss = lm(**collate([row], attention), num_items_in_batch=count).loss
            loss.backward()
            total += loss.item()
        return total, [parameter.grad.clone() for parameter in lm.parameters()]

    apart, packed = losses(examples), losses([join(examples)])
    assert packed[0] == pytest.approx(apart[0], abs=1e-5)
    assert max(float((a - b).abs().max()) for a, b in zip(apart[1], packed[1], strict=True)) < 1e-5
    assert max(float(g.abs().max()) for g in packed[1]) > 1e-2


def test_a_batch_carries_positions_and_mask_of_its_layout_in_the_form_that_is_taken() -> None:
    row = join([encoder().encode(example("one", "two")), encoder().encode(example("a", "b", "c"))])
    dense = dense_mask([row.layout])
    for attention in ("sdpa", "eager", "flex_attention"):
        batch = collate([row], attention)
        assert batch["position_ids"].tolist() == [row.layout.positions]
        mask = batch["attention_mask"]
        if attention == "sdpa":
            assert torch.equal(mask, dense)
        elif attention == "eager":
            assert torch.equal(mask == 0, dense)
            assert mask[~dense].max() < -1e30
        else:
            assert isinstance(mask, BlockMask)
            assert mask.shape == dense.shape


def test_a_batch_is_one_row_whose_logits_are_computed_only_where_they_are_learnt() -> None:
    row = encoder().encode(example("one", "two"))
    batch: dict[str, Any] = collate([row])
    kept = sum(target != IGNORE for target in row.targets)
    assert model()(**batch).logits.shape == (1, kept, 384)
    with pytest.raises(ValueError, match="one packed row, got 2"):
        collate([row, row])
