"""Our Triton kernels, interpreted: passes of a decode step against the reference in float64."""

from __future__ import annotations

from random import Random

import pytest
import torch

from multiverse.attention.shared_prefix import Group, Pass, attend, plan
from multiverse.attention.triton_decode import LEAST_SLOTS, STEP, TritonAttention, chunks, slots_at_once

SCALE = 0.3
NESTED = (
    [420, 300, 330, 351, 349, 60, 300],
    [Group((0, 1, 2, 3, 4, 6), 300), Group((2, 3, 4), 330), Group((3, 4), 349)],
)
"""Three levels; rows 1, 2, 4 and 6 have nothing of their own behind the last fork, row 5 shares nothing."""
WIDE = ([290 + own for own in range(0, 60, 4)], [Group(tuple(range(15)), 290)])


def pool(lengths: list[int], groups: list[Group], page: int, seed: int) -> tuple[torch.Tensor, int]:
    """A table of pages: rows of a group begin with the same full pages; its width; garbage behind the ends."""
    rng, pages = Random(seed), 900
    table = [[rng.randrange(pages) for _ in range(-(-max(lengths) // page) + 2)] for _ in lengths]
    for group in sorted(groups, key=lambda group: group.length):
        for row in group.rows:
            table[row][: group.length // page] = table[group.rows[0]][: group.length // page]
    return torch.tensor(table, dtype=torch.int32), pages


@pytest.mark.parametrize("page", [1, 16])
@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(2, 2, 16), (10, 2, 16), (3, 1, 24), (20, 1, 16)])
@pytest.mark.parametrize("batch", [NESTED, WIDE], ids=["nested", "wide"])
def test_kernels_are_the_reference(
    page: int, heads: int, kv_heads: int, width: int, batch: tuple[list[int], list[Group]]
) -> None:
    lengths, groups = batch
    groups = [Group(group.rows, group.length // page * page) for group in groups]
    table, pages = pool(lengths, groups, page, heads)
    query = torch.randn(len(lengths), heads, width, dtype=torch.float64)
    key, value = torch.randn(2, pages, page, kv_heads, width, dtype=torch.float64)
    slots = [
        torch.tensor([int(row[at // page]) * page + at % page for at in range(length)])
        for row, length in zip(table, lengths, strict=True)
    ]
    passes = plan(lengths, groups)
    expected = attend(query, key.flatten(0, 1), value.flatten(0, 1), slots, passes, SCALE)
    alone = attend(query, key.flatten(0, 1), value.flatten(0, 1), slots, plan(lengths), SCALE)
    assert torch.allclose(expected, alone, rtol=0, atol=1e-12), "who shares what is right in this test"
    order = torch.randperm(len(lengths))  # rows of a host's pool are those of no batch
    engine = TritonAttention(heads, kv_heads, page)
    engine.prepare(passes, table[order], order.argsort(), len(lengths))
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.float16, 2e-3)):
        caches = [cache.to(dtype) for cache in (key, value)]
        if page == 1:
            caches = [cache[:, 0] for cache in caches]
        found = engine(query.to(dtype), *caches, SCALE)
        assert (found.double() - expected).abs().max() < tolerance


def test_caches_may_have_any_strides() -> None:
    """vLLM keeps key and value of a token in one row, and heads before slots."""
    cache = torch.randn(12, 2, 16, 2 * 16)  # pages, heads, slots, content
    key, value = cache.transpose(1, 2).split(16, dim=-1)
    query, table = torch.randn(2, 4, 32)[..., :16], torch.tensor([[3, 5, 7], [3, 5, 9]])
    engine = TritonAttention(4, 2, 16)
    engine.prepare(plan([40, 37], [Group((0, 1), 32)]), table, torch.arange(2), 2)
    slots = [
        torch.tensor([int(row[at // 16]) * 16 + at % 16 for at in range(length)])
        for row, length in zip(table, (40, 37), strict=True)
    ]
    expected = attend(
        query.double(), key.reshape(-1, 2, 16).double(), value.reshape(-1, 2, 16).double(), slots, plan([40, 37]), SCALE
    )
    assert (engine(query, key, value, SCALE) - expected).abs().max() < 2e-6


def test_a_query_that_nothing_is_read_for_gets_zeros() -> None:
    engine = TritonAttention(2, 1)
    engine.prepare(plan([3]), torch.tensor([[1, 2, 3]]), torch.tensor([0]), 2)
    found = engine(torch.randn(2, 2, 16), *torch.randn(2, 8, 1, 16), SCALE)
    assert found[0].abs().sum() > 0
    assert not found[1].any()


def test_chunks_read_for_each_query_what_its_pass_reads() -> None:
    passes = plan(*WIDE)
    cut = chunks(passes, 7, 128)
    assert all(len(part.queries) <= 7 and part.slots <= 128 for part in cut)

    def read(some: list[Pass]) -> list[tuple[int, int, int]]:
        return sorted(
            (query, part.row, at) for part in some for query in part.queries for at in range(part.start, part.stop)
        )

    assert read(cut) == read(passes)


def test_a_long_prefix_keeps_all_processors_busy() -> None:
    passes = plan([16384 + 10] * 16, [Group(tuple(range(16)), 16384)])
    slots = slots_at_once(passes, 8, 132)
    assert slots % STEP == 0
    assert 132 <= 8 * len(chunks(passes[:1], 64, slots)) <= 3 * 132
    assert slots_at_once(plan([40] * 4), 8, 132) == LEAST_SLOTS
