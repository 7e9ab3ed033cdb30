"""Drafts out of what was said before: by the longest beginning that is known, and the last time it was said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from multiverse.serving.ngrams import LONGEST, NGrams

TOKENS = st.lists(st.integers(0, 5), max_size=120)


def grown(*rows: list[int], kept: int = 1 << 18) -> NGrams:
    """It has seen `rows` grow, token by token."""
    known = NGrams(kept)
    for row in rows:
        for end in range(1, len(row) + 1):
            known.learn(row[:end], 1)
    return known


def expected(said: list[list[int]], row: list[int]) -> int | None:
    """What came behind the longest end of `row` that stands anywhere, there where it stands last."""
    for length in range(min(LONGEST, len(row)), 0, -1):
        for one in reversed(said):
            for at in range(len(one) - 1, length - 1, -1):
                if one[at - length : at] == row[-length:]:
                    return one[at]
    return None


def test_it_goes_on_as_another_row_did() -> None:
    known = grown([1, 2, 3, 4, 5, 6, 7])
    assert known.draft([9, 9, 2, 3], 3) == [4, 5, 6]
    assert known.draft([9, 9, 2, 3], 30) == [4, 5, 6, 7]
    assert known.draft([8], 3) == []
    assert known.draft([], 3) == []
    assert known.draft([2], 0) == []


def test_the_longest_beginning_counts_and_of_equals_the_last() -> None:
    known = grown([1, 2, 3], [5, 2, 4])
    assert known.draft([1, 2], 1) == [3]
    assert known.draft([5, 2], 1) == [4]
    assert known.draft([7, 2], 1) == [4]
    assert grown([1, 2, 3], [1, 2, 4]).draft([1, 2], 1) == [4]


@given(TOKENS, TOKENS)
def test_the_next_token_is_what_came_last_behind_the_most(first: list[int], row: list[int]) -> None:
    """A row is told as it grows; what its beginning is at first need not be known to it."""
    found = grown(first, row).draft(row, 1)
    assert found == [token for token in [expected([first, row], row)] if token is not None]


@given(st.lists(st.integers(0, 3), min_size=200, max_size=3000))
def test_a_row_that_comes_whole_is_learned_whole(row: list[int]) -> None:
    known = NGrams()
    known.learn(row, 1)
    assert known.draft(row[-1:], 1) == grown(row).draft(row[-1:], 1)


def test_what_nobody_looks_for_is_forgotten() -> None:
    known = grown([1, 2, 3], kept=50)
    for other in range(10, 200):
        known.learn([other, other + 1, other + 2], 1)
        assert known.draft([1], 1) == [2]
    assert known.draft([1, 2], 1) == []
    assert len(known._young) + len(known._old) < 200
