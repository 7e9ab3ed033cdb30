"""Means over a tree survive what a host can't tell: the least float32 that SGLang reports."""

from __future__ import annotations

import pytest

from multiverse.wire.logprobs import is_rated, mean_logprob

FLOOR = -3.4028234663852886e38


def test_a_mean_leaves_out_what_the_engine_wrote_and_what_is_at_the_floor() -> None:
    tree = [{"key": [], "logprobs": [-1.0, None, FLOOR]}, {"key": [0, 0], "logprobs": [None, -2.0]}, {"key": [0, 1]}]
    assert mean_logprob(tree) == -1.5


@pytest.mark.parametrize("tree", [[], [{"key": []}], [{"key": [], "logprobs": [None, FLOOR]}]])
def test_nothing_rated_has_no_mean(tree: list[dict[str, object]]) -> None:
    assert mean_logprob(tree) is None


@pytest.mark.parametrize(("logprob", "rated"), [(0.0, True), (-150.0, True), (FLOOR, False), (None, False)])
def test_an_unlikely_token_is_rated(logprob: float | None, rated: bool) -> None:
    assert is_rated(logprob) is rated
