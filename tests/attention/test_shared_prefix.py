"""Attention in passes is dense attention, whoever shares what, and what is shared is read once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.attention import runs
from multiverse.attention.batched import BATCH_COST, BATCH_SLOTS, BatchedAttention, batches, extend
from multiverse.attention.shared_prefix import Group, Pass, attend, kv_tokens, plan

torch.set_num_threads(1)
SLOTS, WIDTH, SCALE = 97, 8, 0.3


@st.composite
def forests(draw: st.DrawFn, depth: int = 3) -> tuple[list[list[int]], list[Group]]:
    """Rows of slots and who shares what: some begin alike, and some of those again. Slots repeat, as in no pool."""
    rows: list[list[int]] = []
    groups: list[Group] = []
    lengths = st.integers(0, 12)

    def grow(beginning: list[int], level: int) -> range:
        first = len(rows)
        for _ in range(draw(st.integers(1, 3))):
            own = beginning + [draw(st.integers(0, SLOTS - 1)) for _ in range(draw(lengths))]
            if level and draw(st.booleans()):
                groups.append(Group(tuple(grow(own, level - 1)), len(own)))
            else:
                rows.append(own or [0])
        return range(first, len(rows))

    grow([], depth)
    return rows, groups


def tensors(queries: int, kv_heads: int, share: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(queries)
    query = torch.randn(queries, kv_heads * share, WIDTH, generator=generator, dtype=dtype)
    return query, *torch.randn(2, SLOTS, kv_heads, WIDTH, generator=generator, dtype=dtype)


def dense(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """One query per row, which sees all of it."""
    share = query.shape[1] // key.shape[1]
    output = []
    for one, row in zip(query, rows, strict=True):
        keys, values = (kv[row].repeat_interleave(share, 1).transpose(0, 1) for kv in (key, value))
        output.append(((keys @ one[:, :, None])[..., 0] * SCALE).softmax(-1)[:, None] @ values)
    return torch.stack(output)[:, :, 0]


def table_of(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Rows as hosts keep them: as wide as the longest may become, and whatever was there before behind their ends."""
    table = torch.full((len(rows), max(map(len, rows)) + 3), SLOTS - 1, dtype=torch.int32)
    for at, row in enumerate(rows):
        table[at, : len(row)] = torch.tensor(row)
    return table


@settings(deadline=None)
@given(forests(), st.sampled_from([(1, 1), (2, 2), (3, 3)]), st.sampled_from([1, 10, 10**6]))
def test_passes_are_dense_attention(
    forest: tuple[list[list[int]], list[Group]], heads: tuple[int, int], least: int
) -> None:
    rows, groups = forest
    query, key, value = tensors(len(rows), *heads, torch.float64)
    expected = dense(query, key, value, rows)
    passes = plan([len(row) for row in rows], groups, least)
    found = attend(query, key, value, [torch.tensor(row) for row in rows], passes, SCALE)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    batched = BatchedAttention()
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 0.1)):
        batched.prepare(passes, table_of(rows), torch.arange(len(rows)), dtype)
        found = batched(query.to(dtype), key.to(dtype), value.to(dtype), SCALE)
        assert torch.allclose(found.double(), expected, rtol=0, atol=tolerance)


@settings(deadline=None)
@given(forests())
def test_slots_side_by_side_are_read_where_they_are(forest: tuple[list[list[int]], list[Group]]) -> None:
    """Rows as pools hand them out: runs with breaks between them, shared ones in the same place for all."""
    rows, groups = forest
    lengths, first, place = [len(row) for row in rows], 0, {}
    for row, slots in enumerate(rows):
        for at in range(len(slots)):
            among = max([(row,), *(g.rows for g in groups if row in g.rows and g.length > at)], key=len)
            if (among, at) not in place:
                place[among, at] = first % SLOTS
                first += 3 if at % 7 == 6 else 1
            slots[at] = place[among, at]
    query, key, value = tensors(len(rows), 2, 3, torch.float64)
    passes = plan(lengths, groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "LEAST", 3)
        found, others = runs.split(passes, table_of(rows), torch.arange(len(rows)))
    assert kv_tokens([run.part for run in found] + others) == kv_tokens(passes)
    for run in found:
        here = rows[run.part.row][run.part.start : run.part.stop]
        assert here == list(range(run.first, run.first + len(here)))
        assert len(here) >= 3
    assert not any(part.slots >= 9 for part in others), "7 slots side by side are a run"
    batched, expected = BatchedAttention(), dense(query, key, value, rows)
    for dtype, cached, tolerance in (
        (torch.float32, torch.float32, 2e-5),
        (torch.bfloat16, torch.bfloat16, 0.1),
        (torch.float32, torch.bfloat16, 0.1),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runs, "LEAST", 3)
            batched.prepare(passes, table_of(rows), torch.arange(len(rows)), dtype)
        output = batched(query.to(dtype), key.to(cached), value.to(cached), SCALE)
        assert torch.allclose(output.double(), expected, rtol=0, atol=tolerance)


@settings(deadline=None)
@given(forests())
def test_what_is_shared_is_read_once(forest: tuple[list[list[int]], list[Group]]) -> None:
    rows, groups = forest

    def sharing(row: int, at: int) -> tuple[int, ...]:
        """The rows whose slot `at` is that of `row`."""
        return max([(row,), *(group.rows for group in groups if row in group.rows and group.length > at)], key=len)

    slots = {(sharing(row, at), at) for row, slots in enumerate(rows) for at in range(len(slots))}
    passes = plan([len(row) for row in rows], groups)
    assert kv_tokens(passes) == len(slots)


def test_branches_behind_a_prefix_read_it_once_and_not_once_each() -> None:
    lengths = [2048 + own for own in range(32)]
    group = Group(tuple(range(32)), 2048)
    assert kv_tokens(plan(lengths)) == 32 * 2048 + sum(range(32))
    assert kv_tokens(plan(lengths, [group])) == 2048 + sum(range(32))
    assert plan(lengths, [group])[1] == Pass((1,), 1, 2048, 2049), "the first has nothing of its own"


def test_a_group_gets_a_pass_only_if_that_saves_enough() -> None:
    outer, inner = Group((0, 1, 2), 10), Group((1, 2), 40)
    assert kv_tokens(plan([50] * 3, [outer, inner], least=20)) == 10 + 30 + 40 + 2 * 10
    assert kv_tokens(plan([50] * 3, [outer, inner], least=21)) == 50 + 40 + 2 * 10
    assert kv_tokens(plan([50] * 3, [outer, inner], least=41)) == 150


def test_groups_that_overlap_in_part_are_an_error() -> None:
    with pytest.raises(AssertionError, match="overlap"):
        plan([9, 9, 9], [Group((0, 1), 4), Group((1, 2), 6)])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 300)), min_size=1, max_size=5))
def test_extends_see_what_came_before_and_nothing_behind(rows: list[tuple[int, int]]) -> None:
    prefixes, lengths = zip(*rows, strict=True)
    generator = torch.Generator().manual_seed(7)
    table = torch.randint(0, SLOTS, (len(rows), 600), generator=generator)
    query, key, value = tensors(sum(lengths), 2, 2, torch.float64)
    seen = [
        table[row, : prefix + token + 1].tolist()
        for row, (prefix, length) in enumerate(rows)
        for token in range(length)
    ]
    passes = extend(prefixes, lengths)
    batched = BatchedAttention()
    batched.prepare(passes, table, torch.arange(len(rows)), torch.float64)
    expected = attend(query, key, value, list(table), passes, SCALE)
    assert torch.allclose(batched(query, key, value, SCALE), expected, rtol=0, atol=1e-12)
    sample = torch.randperm(len(seen), generator=generator)[:20].tolist()
    by_token = dense(query[sample], key, value, [seen[at] for at in sample])
    assert torch.allclose(expected[sample], by_token, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(forests(), st.lists(st.integers(1, 5000), max_size=40))
def test_every_pass_is_in_one_batch_which_fits_and_has_no_query_twice(
    forest: tuple[list[list[int]], list[Group]], lengths: list[int]
) -> None:
    rows, groups = forest
    passes = [*plan([len(row) for row in rows], groups), *plan(lengths)]
    made = list(batches(passes))
    assert sorted(part for batch in made for part in batch) == sorted(passes)
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(part.slots for part in batch) <= BATCH_SLOTS
        queries = [query for part in batch for query in part.queries]
        assert len(queries) == len(set(queries))


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=40))
def test_padding_costs_less_than_a_batch(lengths: list[int]) -> None:
    for batch in batches(plan(lengths)):
        slots = [part.slots for part in batch]
        assert 2 * (len(slots) * max(slots) - sum(slots)) <= BATCH_COST
    assert len(list(batches(plan([BATCH_SLOTS // 40] * 40)))) == 1
