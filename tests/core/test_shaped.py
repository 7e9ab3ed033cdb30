"""An answer has the shape that its request gives, whatever is sampled; everything else is as with any controller."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import BINDINGS, Host, encode

from multiverse import Fork, Limits, layout, parse_ids, statistics, to_transcript
from multiverse.decoding.shaped import ShapedController, sampled_tokens
from multiverse.errors import OptionError
from multiverse.serving.options import Options

NESTED = [2, [[3], [1, [[2], [2], [2]], 4]], 5, [[1], [1]], 1]


def play(
    shape: Any, dialect: str = "multiverse", limits: Limits | None = None, seed: int = 0, separators: Any = "overlap"
) -> Host:
    """Sample letters for running strands in any order until the request ends."""
    host, chance = Host(ShapedController(BINDINGS[dialect], shape, limits, separators=separators)), Random(seed)
    while host.running:
        host.feed(chance.choice(host.running), [chance.choice(encode("abc", dialect))])
    return host


def lengths(tokens: Any, host: Host) -> int:
    """How many of `tokens` were sampled."""
    return sum(token in encode("abc", host.controller.binding.dialect.name) for token in tokens)


@pytest.mark.parametrize("dialect", ["multiverse", "npr", "threadweaver"])
def test_branches_have_the_lengths_that_were_asked_for(dialect: str) -> None:
    host = play([2, [[3], [5], [4]], 6], dialect)
    root = host.root
    (_, branches), *_ = root.forks
    assert [lengths(strand.tokens, host) for strand in (root, *branches)] == [2 + 6, 3, 5, 4]
    assert [branch.label for branch in branches] == ["1", "2", "3"]
    found = statistics(to_transcript(host.controller))
    assert (found.blocks, found.max_width, found.fallbacks) == (1, 3, {})
    assert parse_ids(root_ids(host), BINDINGS[dialect]).blocks[0].width == 3


def root_ids(host: Host) -> list[int]:
    return [token for strand, start, end in host.root.spans() for token in strand.tokens[start:end]]


def test_shapes_nest_and_the_document_is_what_was_shown() -> None:
    host = play(NESTED, seed=3)
    transcript = to_transcript(host.controller)
    assert [(block.depth, block.width) for block in transcript.walk()] == [(1, 2), (2, 3), (2, 2)]
    assert lengths(transcript.ids, host) == sampled_tokens(NESTED) == 24
    assert transcript.ids == host.shown


shapes = st.recursive(
    st.lists(st.integers(1, 4), min_size=1, max_size=1),
    lambda inner: st.tuples(st.integers(1, 4), st.lists(inner, min_size=2, max_size=3), st.integers(1, 4)).map(list),
    max_leaves=8,
)


@given(shapes, st.integers(0, 99))
def test_every_shape_is_played_whatever_the_order(shape: Any, seed: int) -> None:
    host = play(shape, limits=Limits(max_depth=100), seed=seed)
    assert lengths(root_ids(host), host) == sampled_tokens(shape)
    assert not any(strand.fallbacks for strand in host.root.walk())


def test_a_block_that_is_refused_is_as_long_in_sequence() -> None:
    host = play(NESTED, limits=Limits(max_branches=2))
    assert sum(isinstance(action, Fork) for action in host.log) == 2
    assert statistics(to_transcript(host.controller)).max_width == 2
    assert [reason for s in host.root.walk() for reason in s.fallbacks.values()] == ["too_wide"]
    assert lengths(root_ids(host), host) == sampled_tokens(NESTED)


@pytest.mark.parametrize("separators", ["overlap", "advance"])
def test_positions_are_those_of_the_layout(separators: Any) -> None:
    host = play(NESTED, separators=separators)
    laid = layout(to_transcript(host.controller), separators)
    assert (host.root.position, host.root.kv_length) == (laid.next_position, laid.length)


def test_behind_a_block_that_is_refused_others_are_forked() -> None:
    host = play([1, [[2], [2], [2]], 2, [[1], [1]], 1], limits=Limits(max_branches=2))
    (fork,) = [action for action in host.log if isinstance(action, Fork)]
    assert (len(fork.children), lengths(root_ids(host), host)) == (2, 12)


def test_the_token_budget_still_bounds_everything() -> None:
    host = play([2, [[50], [50]], 6], limits=Limits(max_tokens=60))
    assert host.controller.ledger.used == 60


def test_tags_that_are_sampled_all_the_same_do_no_harm() -> None:
    for seed in range(200):
        chance = Random(seed)
        host = Host(ShapedController(BINDINGS["multiverse"], NESTED, Limits(max_tokens=400)))
        tokens = [*BINDINGS["multiverse"].tags, *encode("abc\n1:")]
        while host.running:
            host.feed(chance.choice(host.running), [chance.choice(tokens)])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (5, "shape must be a list like"),
        ([], "shape must be a list like"),
        ([1, [[1], [1]]], "shape must be a list like"),
        ([0], "numbers of tokens >= 1 and <= 2147483647 at even places, got 0$"),
        ([True], "numbers of tokens >= 1"),
        ([2**31], "numbers of tokens >= 1 and <= 2147483647 at even places, got 2147483648$"),
        ([1, [[1]] * 65, 1], "blocks of more than max_branches, 64, got one of 65$"),
        ([1, [[1, [[1]] * 65, 1], [1]], 1], "blocks of more than max_branches, 64, got one of 65$"),
        ([1, [[1]], 1], "lists of two shapes or more"),
        ([1, [[1], ["x"]], 1], "numbers of tokens >= 1 and <= 2147483647 at even places, got 'x'$"),
    ],
)
def test_what_is_no_shape_is_refused(shape: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Options(shapes="accept").for_request({"shape": shape})


def test_a_shape_that_is_nested_without_end_is_refused() -> None:
    for levels, bound in ((17, "blocks deeper than 16"), (5000, "deeper than 40")):
        shape: Any = [1]
        for _ in range(levels):
            shape = [1, [shape, [1]], 1]
        with pytest.raises(OptionError, match=bound):
            Options(shapes="accept").for_request({"shape": shape})


def test_only_a_server_that_was_started_for_it_takes_shapes() -> None:
    with pytest.raises(OptionError, match="started with --multiverse-shapes accept"):
        Options().for_request({"shape": [1]})
    options = Options.from_environment({"MULTIVERSE_SHAPES": "accept"}).for_request({"shape": [3]})
    assert isinstance(options.controller(BINDINGS["multiverse"], Limits(), [], None), ShapedController)
    assert type(Options().controller(BINDINGS["multiverse"], Limits(), [], None)) is not ShapedController
    with pytest.raises(OptionError, match="shapes must be 'refuse' or 'accept', got 'yes'"):
        Options.from_environment({"MULTIVERSE_SHAPES": "yes"})
