"""The grammar is an immutable state machine over tags; a tag that isn't expected changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import dialects, trees
from toy import BINDINGS, DIALECTS, block, encode, goal

from multiverse import Tag, get_dialect
from multiverse.structure.grammar import MAX_NESTING, Frame, Grammar, Phase


def tags_of(text: str, dialect: str = "multiverse") -> list[Tag]:
    return [tag for token in encode(text, dialect) if (tag := BINDINGS[dialect].tag(token)) is not None]


def walk(text: str, dialect: str = "multiverse", start: Frame | None = None) -> Frame:
    """The state after `text`, in which every tag has to be expected."""
    grammar = Grammar(get_dialect(dialect))
    frame = start or grammar.root()
    for tag in tags_of(text, dialect):
        after = grammar.advance(frame, tag)
        assert after is not None, tag
        frame = after
    return frame


@given(st.data(), dialects)
def test_a_well_formed_transcript_ends_where_it_began(data: st.DataObject, dialect: str) -> None:
    """Each of its tags is expected, and is among those strict mode allows."""
    text = data.draw(trees(dialect))
    grammar = Grammar(get_dialect(dialect))
    frame = grammar.root()
    for tag in tags_of(text, dialect):
        assert tag in grammar.allowed(frame)
        after = grammar.advance(frame, tag)
        assert after is not None
        frame = after
    assert frame == grammar.root()


@given(st.data(), dialects)
def test_what_strict_mode_allows_is_always_expected(data: st.DataObject, dialect: str) -> None:
    """Strict mode is stricter than the state machine, never looser, and never leads to a dead end inside a block."""
    grammar = Grammar(get_dialect(dialect))
    frame = grammar.root()
    for tag in data.draw(st.lists(st.sampled_from(list(get_dialect(dialect).tags)), max_size=60)):
        allowed = grammar.allowed(frame)
        assert all(grammar.advance(frame, choice) is not None for choice in allowed)
        assert allowed or frame.phase is Phase.CLOSED
        assert 0 <= frame.depth <= MAX_NESTING
        frame = grammar.advance(frame, tag) or frame


@pytest.mark.parametrize("dialect", DIALECTS)
def test_unexpected_tags_are_ordinary_text(dialect: str) -> None:
    """Outside of any block only the tag that opens one means anything."""
    grammar = Grammar(get_dialect(dialect))
    opening = Tag.BLOCK_OPEN if get_dialect(dialect).block else Tag.GOAL_OPEN
    expected = [tag for tag in get_dialect(dialect).tags if grammar.advance(grammar.root(), tag) is not None]
    assert expected == [opening]


def test_a_state_is_not_changed_by_advancing() -> None:
    """Branches can share their parent's state."""
    grammar = Grammar(get_dialect("multiverse"))
    frame = walk(goal(2))
    copy = Frame(*frame)
    grammar.advance(frame, Tag.PATH_OPEN)
    assert frame == copy
    assert (frame.phase, frame.depth, frame.outlines, frame.paths) == (Phase.MAPPED, 1, 2, 0)


def test_path_close_ends_a_branch_at_its_own_level_only() -> None:
    grammar = Grammar(get_dialect("multiverse"))
    branch = grammar.branch(1)
    closed = grammar.advance(branch, Tag.PATH_CLOSE)
    assert closed is not None
    assert closed.phase is Phase.CLOSED
    assert walk(block("a", "b"), start=branch) == branch


@pytest.mark.parametrize("dialect", DIALECTS)
def test_joining_is_as_if_the_paths_and_the_header_had_been_written(dialect: str) -> None:
    grammar = Grammar(get_dialect(dialect))
    frame = walk(goal(2, dialect), dialect)
    joined = grammar.close_path(grammar.close_path(frame))
    path = "".join(get_dialect(dialect).path)
    assert joined == walk(path * 2, dialect, start=frame)
    header = BINDINGS[dialect].conclusion_header
    written = joined
    for token in header:
        written = grammar.advance(written, BINDINGS[dialect].tags[token]) or written
    assert grammar.conclude(joined) == written


def test_a_missing_block_close_is_forgiven_when_another_tag_follows() -> None:
    whole = block("a", "b")
    frame = walk(whole.removesuffix("</Parallel>"))
    assert frame.phase is Phase.CONCLUDED
    assert Grammar(get_dialect("multiverse")).advance(frame, Tag.BLOCK_OPEN) == walk("<Parallel>")


def test_strict_mode_asks_for_exactly_one_path_per_outline() -> None:
    grammar = Grammar(get_dialect("multiverse"))
    frame = walk(goal(2))
    assert grammar.allowed(frame) == {Tag.PATH_OPEN}
    assert grammar.allowed(walk("<Path></Path>", start=frame)) == {Tag.PATH_OPEN}
    assert grammar.allowed(walk("<Path></Path><Path></Path>", start=frame)) == {Tag.CONCLUSION_OPEN}


def test_strict_mode_wants_an_outline_before_goal_close() -> None:
    assert Grammar(get_dialect("multiverse")).allowed(walk("<Parallel><Goal>")) == {Tag.OUTLINE_OPEN}


def test_strict_mode_does_not_nest_where_the_dialect_does_not() -> None:
    assert Tag.BLOCK_OPEN in Grammar(get_dialect("multiverse")).allowed(Frame(Phase.BRANCH, depth=1))
    assert Tag.GOAL_OPEN not in Grammar(get_dialect("npr")).allowed(Frame(Phase.BRANCH, depth=1))
