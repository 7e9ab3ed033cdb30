"""Limits are checked when they are made; the ledger never lets used and reserved exceed them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse import LimitError, Limits
from multiverse.decoding.budgets import Ledger


@pytest.mark.parametrize("field", ["max_tokens", "max_critical_path", "context_length", "max_branches", "max_parallel"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True])
def test_a_limit_that_makes_no_sense_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(LimitError) as caught:
        Limits(**{field: value})
    assert str(caught.value) == f"{field} must be an integer >= 1, got {value!r}"


def test_depth_zero_means_sequential_and_is_allowed() -> None:
    assert Limits(max_depth=0).max_depth == 0
    with pytest.raises(LimitError, match="max_depth must be an integer >= 0, got -1"):
        Limits(max_depth=-1)


@pytest.mark.parametrize("field", ["max_branches", "max_depth"])
def test_caps_on_blocks_are_always_set(field: str) -> None:
    with pytest.raises(LimitError, match=f"{field} must be an integer"):
        Limits(**{field: None})


@pytest.mark.parametrize(
    ("limits", "tokens"),
    [
        (Limits(), None),
        (Limits(max_tokens=5), 5),
        (Limits(context_length=12), 2),
        (Limits(max_tokens=5, context_length=12), 2),
        (Limits(max_tokens=1, context_length=12), 1),
        (Limits(context_length=8), 0),
    ],
)
def test_the_tighter_of_tokens_and_context_binds(limits: Limits, tokens: int | None) -> None:
    assert limits.tokens_for(prompt_length=10) == tokens


@given(
    st.integers(0, 30), st.lists(st.tuples(st.sampled_from(["reserve", "inject", "release", "use"]), st.integers(0, 9)))
)
def test_used_and_reserved_never_exceed_the_limit(limit: int, operations: list[tuple[str, int]]) -> None:
    ledger = Ledger(limit)
    for name, tokens in operations:
        if name == "reserve" and ledger.affords(tokens):
            ledger.reserve(tokens)
        elif name in ("inject", "release") and tokens <= ledger.reserved:
            getattr(ledger, name)(tokens)
        elif name == "use" and not ledger.exhausted:
            ledger.used += 1
        assert 0 <= ledger.used + ledger.reserved <= limit
        assert ledger.injected <= ledger.used
        assert ledger.exhausted == (not ledger.affords(1))


def test_more_than_there_is_can_neither_be_reserved_nor_released() -> None:
    ledger = Ledger(3)
    ledger.reserve(3)
    with pytest.raises(AssertionError):
        ledger.reserve(1)
    with pytest.raises(AssertionError):
        ledger.release(4)
    with pytest.raises(AssertionError):
        ledger.inject(4)


def test_no_limit_is_never_exhausted() -> None:
    ledger = Ledger(None)
    ledger.used = 10**12
    assert not ledger.exhausted
    assert ledger.affords(10**12)
