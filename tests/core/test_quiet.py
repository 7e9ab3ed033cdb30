"""What is written down of a quiet step, without a controller being asked, is what it would have decided: nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import dialects, limits, separators, token_soup, trees
from test_late import state
from tiers import sizes
from toy import BINDINGS, encode

from multiverse import Controller, Limits, Status
from multiverse.decoding.late import deciding_tokens
from multiverse.decoding.shaped import ShapedController
from multiverse.serving.options import Options
from multiverse.serving.quiet import is_quiet
from multiverse.serving.request_tree import Member, RequestTree
from multiverse.serving.stops import Stops

BINDING = BINDINGS["multiverse"]


def step(asked: Controller, quiet: Controller, tokens: list[int]) -> bool:
    """Let each running strand of both sample the next of `tokens`. Returns whether `quiet` had to be asked nothing."""
    pairs = [
        pair for pair in zip(asked.root.walk(), quiet.root.walk(), strict=True) if pair[0].status is Status.RUNNING
    ]
    sampled = tokens[: len(pairs)]
    follows = len(sampled) <= quiet.room() and deciding_tokens(quiet.binding).isdisjoint(sampled)
    for (strand, _), token in zip(pairs, sampled, strict=False):
        assert not (asked.accept(strand, token) and follows)
    for (_, strand), token in reversed(list(zip(pairs, sampled, strict=False))) if follows else ():
        quiet.extend(strand, [token])  # in whatever order
    for (_, strand), token in () if follows else zip(pairs, sampled, strict=False):
        quiet.accept(strand, token)
    return follows


def play(asked: Controller, quiet: Controller, tokens: list[int]) -> int:
    """All steps that `tokens` last for; how many of them were quiet. Both controllers are as one after each."""
    asked.begin()
    quiet.begin()
    count = 0
    while tokens and asked.finish_reason is None:
        width = sum(strand.status is Status.RUNNING for strand in asked.root.walk())
        count += step(asked, quiet, tokens)
        del tokens[:width]
        assert state(asked) == state(quiet)
    return count


@settings(max_examples=sizes().streams)
@given(st.data(), dialects, limits, separators)
def test_it_decides_the_same_whether_it_was_asked_in_quiet_steps_or_not(
    data: st.DataObject, dialect: str, caps: Limits, setting: Any
) -> None:
    written = trees(dialect).map(lambda text: encode(text, dialect))
    tokens = data.draw(st.one_of(token_soup(dialect, 90), written))
    asked, quiet = (Controller(BINDINGS[dialect], caps, separators=setting) for _ in range(2))
    play(asked, quiet, list(tokens))


@pytest.mark.parametrize("caps", [Limits(), Limits(max_tokens=40), Limits(max_critical_path=16)])
def test_most_steps_are_quiet(caps: Limits) -> None:
    text = "<Parallel><Goal><Outline>1:a</Outline><Outline>2:b</Outline></Goal>"
    asked, quiet = (Controller(BINDING, caps) for _ in range(2))
    assert play(asked, quiet, encode(text) + encode("ab" * 100)) >= (100 if caps == Limits() else 8)


@settings(max_examples=sizes().streams)
@given(st.integers(0, 3))
def test_a_shape_decides_too(seed: int) -> None:
    shape = [2 + seed, [[6], [1, [[2], [5]], 4]], 5]
    asked, quiet = (ShapedController(BINDING, shape) for _ in range(2))
    assert play(asked, quiet, encode("a" * 60)) >= 4
    assert quiet.finish_reason is not None


class Strand(Member):
    """Known to a host, and computed."""


def tree(controller: Controller, stops: Stops | None = None, **options: Any) -> RequestTree:
    found = RequestTree(controller, Options(**options), streams=True, stops=stops or Stops())
    found.members[()] = Strand(found, controller.root)
    return found


def test_a_tree_is_quiet_while_nobody_looks_and_nothing_is_near() -> None:
    assert is_quiet(tree(Controller(BINDING)))
    assert is_quiet(tree(Controller(BINDING), Stops(tokens=frozenset(BINDING.eos))))
    assert not is_quiet(tree(Controller(BINDING), Stops(strings=("a",))))
    assert not is_quiet(tree(Controller(BINDING), Stops(tokens=frozenset(encode("a")))))
    assert not is_quiet(tree(Controller(BINDING), stream="events"))
    assert not is_quiet(tree(Controller(BINDING, Limits(max_tokens=1))))


def test_it_is_quiet_until_a_limit_may_be_reached_and_not_once_something_happened() -> None:
    found = tree(Controller(BINDING, Limits(max_tokens=4)))
    quiet = 0
    while is_quiet(found):
        found.controller.extend(found.controller.root, encode("a"))
        quiet += 1
    assert (quiet, found.controller.accept(found.controller.root, encode("a")[0]) != ()) == (3, True)
    found = tree(Controller(BINDING))
    assert is_quiet(found)
    found.members[()].draining = True
    assert is_quiet(found)  # nobody said so
    found.disturb()
    assert not is_quiet(found)
