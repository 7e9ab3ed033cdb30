"""Where the tokens of branches go at a join in vLLM: nothing lost, nothing doubled, as little moved as can be."""

from __future__ import annotations

import pytest

pytest.importorskip("vllm", reason="vLLM's blocks")

from hypothesis import given
from hypothesis import strategies as st

from multiverse_vllm.blocks import plan_splice


@given(
    length=st.integers(0, 70), branches=st.lists(st.integers(0, 100), min_size=1, max_size=6), size=st.integers(1, 32)
)
def test_every_token_of_every_branch_has_one_new_place(length: int, branches: list[int], size: int) -> None:
    ends = [length + own for own in branches]
    plan = plan_splice(length, ends, size)
    kept = [(branch, at) for branch, block in plan.adopted for at in range(block * size, (block + 1) * size)]
    assert sorted(kept + plan.loose) == [(branch, at) for branch, end in enumerate(ends) for at in range(length, end)]


@given(
    length=st.integers(0, 70), branches=st.lists(st.integers(0, 100), min_size=1, max_size=6), size=st.integers(1, 32)
)
def test_adopted_blocks_follow_full_ones_and_only_what_has_to_move_moves(
    length: int, branches: list[int], size: int
) -> None:
    plan = plan_splice(length, [length + own for own in branches], size)
    assert not plan.adopted or (length + plan.fill) % size == 0
    assert plan.fill == min(-length % size, len(plan.loose))
    for branch, own in enumerate(branches):
        assert sum(loose == branch for loose, _ in plan.loose) <= (-length % size) + (length + own) % size
