"""Resume points: what of a prefix cache's find is of use to a sequence that is computed in parts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from multiverse.serving.resume import resume_point

SPANS = [(0, 10), (26, 32), (48, 60)]
"""Three parts, with branches between them: tokens 10 to 25 and 32 to 47."""


def test_what_ends_within_branches_is_cut_back_to_the_part_before_them() -> None:
    assert resume_point(SPANS, 47, 1, whole=True) == (1, 32)
    assert resume_point(SPANS, 47, 8, whole=True) == (1, 32)
    assert resume_point(SPANS, 31, 8, whole=True) == (0, 8)
    assert resume_point(SPANS, 25, 8, whole=True) == (0, 8)


def test_of_the_last_part_a_token_is_left_to_sample_behind() -> None:
    assert resume_point(SPANS, 60, 1, whole=True) == (2, 59)
    assert resume_point(SPANS[:1], 10, 1, whole=True) == (0, 9)
    assert resume_point(SPANS, 60, 4, whole=True) == (2, 56)


def test_a_part_that_forks_keeps_a_token_where_the_host_needs_one() -> None:
    assert resume_point(SPANS, 47, 1, whole=False) == (1, 31)
    assert resume_point(SPANS, 47, 16, whole=False) == (0, 0)
    assert resume_point(SPANS, 47, 16, whole=True) == (1, 32)


@given(cached=st.integers(0, 70), size=st.integers(1, 20), whole=st.booleans())
def test_it_lies_in_a_part_within_what_is_cached_and_no_later_part_would_do(
    cached: int, size: int, whole: bool
) -> None:
    part, length = resume_point(SPANS, cached, size, whole)
    assert length <= cached
    assert length % size == 0
    start, end = SPANS[part]
    assert start <= length <= end
    for start, end in SPANS[part + 1 :]:
        usable = min(cached, end if whole and end != SPANS[-1][1] else end - 1)
        assert usable // size * size < start
