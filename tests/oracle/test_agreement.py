"""The decoder that forks and splices agrees with one dense-mask forward over the finished document.

And the plain causal forward of the same tokens does not: otherwise agreement would prove nothing.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from script import decode
from strategies import trees
from tiny_models import FAMILIES, qwen3
from toy import DIALECTS, block, goal

from multiverse import Limits
from multiverse.errors import CheckError
from multiverse.oracle import check

SAME, DIFFERENT = 1e-4, 0.1

GOAL = goal(2)
FLAT = "ab" + block("abc", "def", "gh") + "cd"
SHAPES = {
    "flat": ("a", FLAT),
    "uneven": ("a", block("a", "abcdefgh" * 3, "bc") + "d"),
    "empty paths": ("a", block("", "abc", "") + "d"),
    "nested": ("a", block("ab" + block("cd", "efg", prefix="1.") + "h", "abc") + "d"),
    "nested in a later path": ("a", block("abc", "ab" + block("cd", "efg") + "h") + "d"),
    "nested to depth 3": ("a", block("b" + block("c", "d" + block("ef", "g"), "h"), "abc") + "de"),
    "two blocks": ("a", "b" + block("cd", "e") + "fg" + block("ab", "cdef", "gh") + "a"),
    "block in a conclusion": ("a", block("ab", "cd", conclusion="e" + block("fg", "hab") + "c") + "d"),
    "block in a sequential block": ("a", block("ab" + block("cd", "efg") + "h") + "d"),
    "follow-up turn": ("ab" + block("cde", "fgh") + "ab", "cd" + block("ab", "cdef") + "gh"),
    "prompt that ends at goal-close": ("a" + GOAL, block("abc", "de").removeprefix(GOAL) + "fg"),
    "prompt that ends after the separator": (
        "a" + goal(2) + "\n",
        block("abc", "de").removeprefix(goal(2) + "\n") + "f",
    ),
    "prompt that ends in a goal": ("a" + goal(2)[:-8], block("abc", "de").removeprefix(goal(2)[:-8]) + "fg"),
}


def agree(transcript: Any, model: Any, **options: Any) -> None:
    result = check(transcript, model, **options)
    assert result.compared > 10
    assert result.max_difference <= SAME
    assert result.causal_difference > DIFFERENT


@pytest.mark.parametrize("separators", ["overlap", "advance"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_decoder_and_dense_forward_agree(shape: str, family: str, separators: str) -> None:
    """To 1e-4 in float32, at every token that was rated."""
    model = FAMILIES[family]()
    (transcript,) = decode(model, [SHAPES[shape]], separators=separators)
    agree(transcript, model, separators=separators)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_agrees(dialect: str) -> None:
    """Also where the joined text is prefilled causally; the text after the last thread then sees plain positions."""
    answer = "ab" + block("abc", "", "defgh", dialect=dialect) + "cd" + block("ab", "cdef", dialect=dialect) + "e"
    (transcript,) = decode(qwen3(), [("a", answer)], dialect)
    join = "prefill" if dialect == "threadweaver" else "splice"
    separators = "advance" if dialect == "threadweaver" else "overlap"
    agree(transcript, qwen3(), join=join, separators=separators)


@settings(max_examples=6)
@given(trees(max_depth=3, max_width=6, separator="\n"), st.sampled_from(["overlap", "advance"]))
def test_any_tree_agrees(text: str, separators: str) -> None:
    (transcript,) = decode(qwen3(), [("a", text)], separators=separators)
    assert check(transcript, qwen3(), separators=separators).max_difference <= SAME


def test_a_blind_conclusion_is_found_out() -> None:
    """Leaving the branches' KV out at the join makes the check fail, after the join and only there."""
    (transcript,) = decode(qwen3(), [("a", FLAT)], splice_branches=False)
    result = check(transcript, qwen3())
    assert result.max_difference > DIFFERENT
    join = transcript.blocks[0].paths[-1].end
    assert result.worst > join
    assert max(d for d in result.differences[:join] if d is not None) <= SAME


def test_wrong_positions_are_found_out() -> None:
    """A check with the other setting of separators must fail: two positions matter."""
    (transcript,) = decode(qwen3(), [("a", FLAT)])
    assert check(transcript, qwen3(), separators="advance").max_difference > DIFFERENT


def test_requests_side_by_side_are_as_each_alone() -> None:
    """A batch of unequal prompts at unequal places changes no log-probability."""
    requests = list(SHAPES.values())
    together = decode(qwen3(), requests)
    for request, batched in zip(requests, together, strict=True):
        (alone,) = decode(qwen3(), [request])
        assert alone.ids == batched.ids
        assert alone.logprobs == pytest.approx(batched.logprobs, abs=SAME)


def test_branches_that_wait_their_turn_change_nothing() -> None:
    (waiting,) = decode(qwen3(), [SHAPES["nested"]], limits=Limits(max_parallel=1))
    (at_once,) = decode(qwen3(), [SHAPES["nested"]])
    assert waiting.logprobs == pytest.approx(at_once.logprobs, abs=SAME)


def test_every_generated_token_is_rated_but_the_first_after_a_join() -> None:
    """No single token's logits predict that one; the prompt isn't rated."""
    (transcript,) = decode(qwen3(), [("abc", FLAT)])
    assert transcript.logprobs is not None
    unrated = [i for i, value in enumerate(transcript.logprobs) if value is None]
    assert unrated == [0, 1, 2, transcript.blocks[0].paths[-1].end]


def test_the_result_says_where_the_worst_token_is() -> None:
    (transcript,) = decode(qwen3(), [("a", FLAT)])
    assert transcript.logprobs is not None
    wrong = list(transcript.logprobs)
    wrong[20] = (wrong[20] or 0.0) - 5
    result = check(transcript, qwen3(), wrong)
    assert result.worst == 20
    assert result.max_difference == pytest.approx(5, abs=1e-3)
    assert result.compared == sum(value is not None for value in wrong)


def test_what_does_not_belong_together_is_refused() -> None:
    (transcript,) = decode(qwen3(), [("a", FLAT)])
    with pytest.raises(CheckError, match=f"3 logprobs were given for {len(transcript)} tokens"):
        check(transcript, qwen3(), [0.0] * 3)
    transcript.logprobs = None
    with pytest.raises(CheckError, match="nothing to check"):
        check(transcript, qwen3())
    transcript.tokens = ["a"]
    with pytest.raises(CheckError, match="parsed from text"):
        check(transcript, qwen3(), [0.0])
