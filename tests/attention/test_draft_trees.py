"""Drafts that are verified in one step see their row, and of the drafts those that they go on from."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.attention.batched import BatchedAttention, extend
from multiverse.attention.draft_trees import verify

torch.set_num_threads(1)
SLOTS, WIDTH, SCALE = 301, 8, 0.3


@st.composite
def trees(draw: st.DrawFn) -> list[list[bool]]:
    """Which drafts see which, of up to eight."""
    found = [[True]]
    for at in range(1, draw(st.integers(1, 8))):
        parent = found[draw(st.integers(0, at - 1))]
        found.append([*parent, *[False] * (at - len(parent)), True])
    return [[*seen, *[False] * (len(found) - len(seen))] for seen in found]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), trees()), min_size=1, max_size=4), st.integers(0, 99))
def test_attention_of_drafts_is_dense_attention(rows: list[tuple[int, list[list[bool]]]], seed: int) -> None:
    torch.manual_seed(seed)
    queries = sum(len(tree) for _, tree in rows)
    query = torch.randn(queries, 4, WIDTH)
    key, value = torch.randn(2, SLOTS, 2, WIDTH)
    table = torch.stack([torch.randperm(SLOTS)[:100] for _ in rows])
    attention = BatchedAttention()
    passes = verify([prefix for prefix, _ in rows], [tree for _, tree in rows])
    attention.prepare(passes, table, torch.arange(len(rows)), torch.float32)
    found, at = attention(query, key, value, SCALE), 0
    for row, (prefix, tree) in enumerate(rows):
        for seen in tree:
            slots = table[row, [*range(prefix), *(prefix + place for place, sees in enumerate(seen) if sees)]]
            keys, values = (kv[slots].repeat_interleave(2, dim=1) for kv in (key, value))
            weights = (torch.einsum("hd,khd->hk", query[at], keys) * SCALE).softmax(-1)
            torch.testing.assert_close(found[at], torch.einsum("hk,khd->hd", weights, values), atol=1e-5, rtol=0)
            at += 1


def test_a_chain_is_an_extend() -> None:
    chain = [[place <= at for place in range(5)] for at in range(5)]
    assert verify([7, 30], [chain, chain]) == extend([7, 30], [5, 5])


def test_what_is_padded_costs_a_pass_over_the_row_and_one_over_itself() -> None:
    """SGLang fills drafts up with tokens that go on from the last one of the row."""
    tree = [[True, False, False], [True, True, False], [True, False, True]]
    assert [(list(one.queries), one.start, one.stop) for one in verify([9], [tree])] == [
        ([0, 1, 2], 0, 9),
        ([0], 9, 10),
        ([1], 9, 11),
        ([2], 9, 10),
        ([2], 11, 12),
    ]
