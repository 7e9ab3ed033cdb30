"""Where the tokens of branches go at a join: nothing lost, nothing doubled, as little moved as can be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import trees
from toy import BINDINGS, encode

from multiverse import Controller, layout, to_transcript
from multiverse.decoding.splice import Span, kv_order, plan_splice
from multiverse.structure.layout import Separators

lengths = st.integers(0, 70)
branch_lengths = st.lists(st.integers(0, 100), min_size=1, max_size=6)
sizes = st.integers(1, 32)


def tokens(spans: list[Span]) -> list[tuple[int, int]]:
    return [(branch, at) for branch, start, end in spans for at in range(start, end)]


@given(lengths, branch_lengths, sizes)
def test_every_token_of_every_branch_has_one_new_place(length: int, branches: list[int], size: int) -> None:
    ends = [length + own for own in branches]
    plan = plan_splice(length, ends, size)
    found = sorted(tokens(plan.adopted) + tokens(plan.loose))
    assert found == [(branch, at) for branch, end in enumerate(ends) for at in range(length, end)]


@given(lengths, branch_lengths, sizes)
def test_adopted_pages_are_whole_and_follow_full_ones_and_only_what_has_to_move_moves(
    length: int, branches: list[int], size: int
) -> None:
    plan = plan_splice(length, [length + own for own in branches], size)
    assert all(start % size == end % size == 0 < end - start for _, start, end in plan.adopted)
    assert not plan.adopted or (length + plan.fill) % size == 0
    assert plan.fill == min(-length % size, len(tokens(plan.loose)))
    for branch, own in enumerate(branches):
        assert sum(loose == branch for loose, _ in tokens(plan.loose)) <= (-length % size) + (length + own) % size


@given(lengths, branch_lengths, sizes)
def test_the_pages_that_loose_tokens_come_from_have_room_for_them(length: int, branches: list[int], size: int) -> None:
    """So a join needs no free page."""
    plan = plan_splice(length, [length + own for own in branches], size)
    sources = {(branch, at // size) for branch, at in tokens(plan.loose)}
    assert -(-(len(tokens(plan.loose)) - plan.fill) // size) <= len(sources)


@pytest.mark.parametrize("separators", ["overlap", "advance"])
@given(text=trees(), size=sizes)
def test_the_order_of_kv_has_every_token_once_at_its_position(text: str, size: int, separators: Separators) -> None:
    controller = Controller(BINDINGS["multiverse"], prompt=encode("ab" + text), separators=separators)
    found = [(token, position) for token, position, _ in kv_order(controller, controller.root, size).entries]
    transcript = to_transcript(controller)
    expected = list(zip(transcript.ids, layout(transcript, separators).positions, strict=True))
    assert sorted(found) == sorted(expected)
    if size == 1:
        assert found == expected


@given(text=trees(), size=sizes)
def test_what_comes_behind_a_join_does_not_move_what_was_before(text: str, size: int) -> None:
    """Or a branch could not begin with its parent's pages, and a prefix cache would find nothing."""
    whole = Controller(BINDINGS["multiverse"], prompt=encode("ab" + text + "cd"))
    order = kv_order(whole, whole.root, size)
    for start, end in order.spans:
        assert [path for _, _, path in order.entries[start:end]] == [()] * (end - start)
    cut = Controller(BINDINGS["multiverse"], prompt=encode("ab" + text))
    before = kv_order(cut, cut.root, size).entries
    assert order.entries[: len(before)] == before
