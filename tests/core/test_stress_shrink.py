"""A failing mix is shrunk to a smallest one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from multiverse.stress.shrink import shrink


@given(st.sets(st.integers(0, 99), min_size=1, max_size=3))
def test_what_is_left_is_what_the_failure_needs(needed: set[int]) -> None:
    assert shrink(range(100), lambda part: needed <= part, tries=1000) == needed


def test_it_gives_up_after_so_many_tries_with_a_part_that_failed() -> None:
    tried: list[frozenset[int]] = []

    def fails(part: frozenset[int]) -> bool:
        tried.append(part)
        return {3, 90} <= part

    left = shrink(range(100), fails, tries=5)
    assert len(tried) == 5
    assert {3, 90} <= left
