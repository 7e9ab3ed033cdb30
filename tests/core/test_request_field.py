"""Whatever JSON can say, the field of a request is taken or refused in few words that name what is wrong."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.decoding.budgets import LARGEST
from multiverse.errors import LONGEST, MultiverseError, shown
from multiverse.serving.field import ALL_TOKENS, BRANCH_SAMPLING, DEEPEST, changed_in_branches, field_of, has_field
from multiverse.serving.options import CAPS, Options

LONGEST_ERROR = 400
"""Characters: the longest list of what is allowed, and the beginning of what was given."""


def refusal(field: Any, server: Options | None = None) -> str:
    """What a client is told of a wrong field."""
    with pytest.raises(MultiverseError) as refused:
        (server or Options()).for_request(field)
    message = str(refused.value)
    message.encode()  # so that it can be sent
    assert len(message) <= LONGEST_ERROR
    return message


def bits(number: int) -> str:
    return f"{number.bit_length()} bits"


def nested(levels: int, end: Any = 1) -> Any:
    value = end
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", [LARGEST + 1, 2**63, 2**64, 2**200, 10**4000, 10**5000], ids=bits)
@pytest.mark.parametrize("cap", CAPS)
def test_an_integer_that_can_not_be_sent_on_is_refused_by_name(cap: str, value: int) -> None:
    assert refusal({cap: value}).startswith(f"{cap} must be at most {LARGEST}, got ")


def test_the_largest_integer_is_taken() -> None:
    assert Options().for_request({"max_parallel": LARGEST}).max_parallel == LARGEST


@pytest.mark.parametrize("name", BRANCH_SAMPLING)
def test_branch_sampling_is_bounded_on_both_sides(name: str) -> None:
    least, most = BRANCH_SAMPLING[name]
    for value in (least, most):
        assert Options().for_request({"branch_sampling": {name: value}}).branch_sampling == {name: value}
    outside = [math.nextafter(least, -math.inf), math.nextafter(most, math.inf), math.nan, math.inf, -math.inf]
    for value in (*outside, 10**400, -(10**400)):
        message = refusal({"branch_sampling": {name: value}})
        assert message.startswith(f"branch_sampling: {name} must be from {least} to {most}, got ")
        assert refusal(json.dumps({"branch_sampling": {name: value}})) == message


@pytest.mark.parametrize("value", [1.5, 20.0, "20", True, None])
def test_top_k_is_a_whole_number(value: Any) -> None:
    assert refusal({"branch_sampling": {"top_k": value}}).startswith("branch_sampling: top_k must be a")


@pytest.mark.parametrize(
    ("wanted", "greedy", "changed"),
    [
        ({"temperature": 1.0}, True, {"temperature": 1.0, "top_p": 1.0, "top_k": ALL_TOKENS, "min_p": 0.0}),
        ({"temperature": 1.0, "top_k": 5}, True, {"temperature": 1.0, "top_p": 1.0, "top_k": 5, "min_p": 0.0}),
        ({"top_k": 5, "presence_penalty": 1}, True, {"presence_penalty": 1}),
        ({"temperature": 1.0, "top_k": 5}, False, {"temperature": 1.0, "top_k": 5}),
        ({"temperature": 0}, False, {"temperature": 0}),
    ],
)
def test_a_greedy_request_has_no_cuts_in_branches_and_stays_greedy_without_a_temperature(
    wanted: dict[str, float], greedy: bool, changed: dict[str, float]
) -> None:
    assert changed_in_branches(wanted, greedy) == changed


def test_logits_stay_finite_at_the_bounds() -> None:
    """The largest logit of a 16-bit model, divided by what divides it, in single precision."""
    largest = 65504 / BRANCH_SAMPLING["repetition_penalty"][0] / 1e-6  # the least temperature that is not greedy
    assert largest < 3e38


@pytest.mark.parametrize("levels", [DEEPEST + 1, 900, 100_000])
def test_nesting_is_bounded_before_anything_recurses(levels: int) -> None:
    expected = f"multiverse must not nest objects and lists deeper than {DEEPEST}"
    for field in (nested(levels), {"shape": nested(levels)}, {"structure": nested(levels)}, {"x": nested(levels)}):
        assert refusal(field, Options(shapes="accept")) == expected


@pytest.mark.parametrize("levels", [1_000, 100_000, 1_000_000])
@pytest.mark.parametrize("opening", ["[", '{"shape":', '{"shape": [1, ['])
def test_a_text_that_is_nested_without_end_is_refused(opening: str, levels: int) -> None:
    assert refusal(opening * levels).startswith("multiverse must ")


@pytest.mark.parametrize(
    "field",
    [
        {"structure": "x" * 1_000_000},
        {"stream": ["x" * 1_000_000]},
        {"enabled": {"x": "y" * 1_000_000}},
        {"max_branches": "9" * 1_000_000},
        {"branch_sampling": "x" * 1_000_000},
        {"branch_sampling": {"x" * 1_000_000: 1}},
        {"branch_sampling": {"top_p": [1] * 1_000_000}},
        {"x" * 1_000_000: 1},
        {str(number): 1 for number in range(100_000)},
        {"structure": "\ud800"},
        {"\ud800": 1},
        "x" * 1_000_000,
        "\ud800",
        [1] * 1_000_000,
        5,
        True,
    ],
    ids=lambda field: str(field)[:24].encode("ascii", "replace").decode(),
)
def test_an_error_is_short_however_long_the_value(field: Any) -> None:
    refusal(field)


def test_an_error_names_few_of_many_unknown_keys() -> None:
    assert refusal(dict.fromkeys("abcdef", 1)).startswith(
        "multiverse has no 'a', 'b', 'c' and 3 more; it has enabled, "
    )


def test_a_wide_shape_is_refused_before_a_label_is_made() -> None:
    shape = [1, [[1]] * 1_000_000, 1]
    assert "max_branches, 64, got one of 1000000" in refusal({"shape": shape}, Options(shapes="accept"))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=200),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=20,
)
names = st.sampled_from([*Options.__dataclass_fields__, *BRANCH_SAMPLING]) | st.text(max_size=9)


@given(anything | st.dictionaries(names, anything | st.dictionaries(names, anything), max_size=4))
def test_no_value_does_anything_but_pass_or_be_refused(field: Any) -> None:
    for given_as in (field, json.dumps(field)):
        told = ""
        try:
            Options(shapes="accept").for_request(given_as)
        except MultiverseError as error:
            told = str(error)
        assert len(told) <= LONGEST_ERROR


LARGE = {
    "deep list": nested(100_000),
    "deep object": {"a": nested(900)},
    "surrogates": "\ud800" * 200,
    "text": "a" * 200,
    "integer": 10**5000,
    "bytes": b"x" * 200,
}


@pytest.mark.parametrize("name", LARGE)
def test_a_value_is_shown_in_few_characters_that_can_be_sent(name: str) -> None:
    assert len(shown(LARGE[name]).encode()) <= LONGEST


IN_METADATA: list[tuple[dict[str, Any], bool, Any]] = [
    ({}, False, None),
    ({"multiverse": {"max_depth": 1}}, True, {"max_depth": 1}),
    ({"metadata": {"multiverse": {"max_depth": 1}}}, True, {"max_depth": 1}),
    ({"metadata": {"multiverse": '{"max_depth": 1}', "user": "7"}}, True, '{"max_depth": 1}'),
    ({"multiverse": {"max_depth": 2}, "metadata": {"multiverse": {"max_depth": 1}}}, True, {"max_depth": 2}),
    ({"multiverse": None, "metadata": {"multiverse": {"max_depth": 1}}}, True, None),
    ({"metadata": {"user": "7"}}, False, None),
    ({"metadata": None}, False, None),
    ({"metadata": "multiverse"}, False, None),
    ({"metadata": ["multiverse"]}, False, None),
]


@pytest.mark.parametrize(("request_body", "there", "expected"), IN_METADATA)
def test_the_field_is_also_read_from_metadata_but_its_own_place_counts(
    request_body: dict[str, Any], there: bool, expected: Any
) -> None:
    """Gateways that drop fields they don't know hand `metadata` on."""
    assert (has_field(request_body), field_of(request_body)) == (there, expected)
