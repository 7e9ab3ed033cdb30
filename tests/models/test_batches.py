"""What the embedded model is trained on: positions, visibility and loss of a batch are those of its transcripts."""

from __future__ import annotations

from random import Random

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from multiverse.attention import dense_mask
from multiverse.binding import bind
from multiverse.injected import injected
from multiverse.layout import layout
from multiverse.models.batches import IGNORE, Batch, Batches
from multiverse.models.tokenizer import build_tokenizer
from multiverse.parser import parse_ids


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(examples=300)


def first(tokenizer: PreTrainedTokenizerFast, causal: float, mode: str = "parallel") -> Batch:
    batches = Batches(tokenizer, mode, 3000, causal, Random(3), level=1.0)  # type: ignore[arg-type]
    return next(b for b in batches if b.ids.shape[1] > 300)


def test_positions_and_mask_are_those_of_the_layout(tokenizer: PreTrainedTokenizerFast) -> None:
    batch, binding = first(tokenizer, causal=0.0), bind("multiverse", tokenizer)
    for row, positions, mask in zip(batch.ids.tolist(), batch.positions, batch.mask[:, 0], strict=True):
        ids = [token for token in row if token != tokenizer.pad_token_id]
        placed = layout(parse_ids(ids, binding))
        assert positions[: len(ids)].tolist() == placed.positions
        assert torch.equal(mask[: len(ids), : len(ids)], dense_mask(placed))
        assert placed.next_position < len(ids)  # there was a block


def test_the_loss_leaves_out_prompt_padding_and_what_the_engine_writes(tokenizer: PreTrainedTokenizerFast) -> None:
    batch, binding = first(tokenizer, causal=0.0), bind("multiverse", tokenizer)
    start = tokenizer("<|im_start|>assistant\n")["input_ids"]
    for row, labels in zip(batch.ids.tolist(), batch.labels.tolist(), strict=True):
        ids = [token for token in row if token != tokenizer.pad_token_id]
        begin = next(i for i in range(len(ids)) if ids[i - len(start) : i] == start)
        tree = parse_ids(ids, binding)
        written = {i + n for i, tokens in injected(tree, binding) for n in range(len(tokens))}
        learnt = {i + 1 for i, label in enumerate(labels) if label != IGNORE}
        assert learnt == set(range(begin, len(ids))) - written
        assert all(labels[i - 1] == ids[i] for i in learnt)
        # Each learnt token follows the one before it in the layout too, else its target would be another token's.
        assert all(layout(tree).predecessors[i] == i - 1 for i in learnt)


@pytest.mark.parametrize(("causal", "mode"), [(1.0, "parallel"), (0.0, "sequential")])
def test_causal_rows_are_plain(tokenizer: PreTrainedTokenizerFast, causal: float, mode: str) -> None:
    batch = first(tokenizer, causal, mode)
    length = batch.ids.shape[1]
    assert torch.equal(batch.positions, torch.arange(length).expand_as(batch.positions))
    assert torch.equal(batch.mask, torch.ones(length, length, dtype=torch.bool).tril().expand_as(batch.mask))
