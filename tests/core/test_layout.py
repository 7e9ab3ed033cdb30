"""Positions and visibility are those of SEMANTICS section 2, for every tree."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from slow import Slow
from strategies import dialects, separators, trees
from toy import BINDINGS, block, encode, goal

from multiverse import Block, Transcript, layout, parse_ids


def read(text: str, dialect: str = "multiverse") -> Transcript:
    return parse_ids(encode(text, dialect), BINDINGS[dialect])


def place(transcript: Transcript, tag: str) -> list[int]:
    """Indices of `tag`."""
    (token,) = encode(tag)
    return [i for i, found in enumerate(transcript.ids) if found == token]


@given(st.data(), dialects, separators)
def test_layout_is_the_slow_definition(data: st.DataObject, dialect: str, setting: str) -> None:
    """Positions, visibility, predecessors and critical path of any tree, also one cut off anywhere."""
    ids = encode(data.draw(trees(dialect)), dialect)
    ids = ids[: data.draw(st.integers(len(ids) // 2, len(ids)))]
    transcript = parse_ids(ids, BINDINGS[dialect])
    fast, slow = layout(transcript, setting), Slow(transcript, setting)
    assert fast.positions == slow.positions
    assert fast.predecessors == [slow.predecessor(t) for t in range(len(ids))]
    start = data.draw(st.integers(0, len(ids)))
    assert fast.critical_path(start) == slow.critical_path(start)
    for segment in fast.segments:
        seen = {s for a, b in segment.visible() for s in range(a, b)}
        for t in range(segment.start, segment.end):
            assert seen | set(range(segment.start, t + 1)) == {s for s in range(len(ids)) if slow.visible[t][s]}


INNER = "c" + block("d", "ef" + block("g", "h"), "a") + "b"


@pytest.mark.parametrize("setting", ["overlap", "advance"])
@pytest.mark.parametrize("text", [block("a", INNER), block("a", "bb", INNER, INNER), block("a", "b", conclusion=INNER)])
def test_a_block_in_a_later_path_sees_neither_level_of_siblings(text: str, setting: str) -> None:
    """What is hidden from a path is hidden from every block inside it."""
    tree = read(text + "a")
    fast, slow = layout(tree, setting), Slow(tree, setting)
    assert fast.positions == slow.positions
    for segment in fast.segments:
        seen = [any(a <= s < b for a, b in segment.visible()) for s in range(segment.start)]
        assert seen == slow.visible[segment.start][: segment.start]


@given(trees(), separators)
def test_segments_cover_the_tokens_in_order(text: str, setting: str) -> None:
    """No token is left out and none comes twice; `next_position` never runs ahead of the KV length."""
    laid = layout(read(text), setting)
    assert [i for s in laid.segments for i in range(s.start, s.end)] == list(range(laid.length))
    assert len(laid.positions) == len(laid.predecessors) == laid.length
    assert laid.position_delta == laid.next_position - laid.length <= 0


@given(trees(), separators)
def test_next_position_is_where_plain_text_goes_on(text: str, setting: str) -> None:
    after = read(text + "a")
    assert layout(read(text), setting).next_position == layout(after, setting).positions[-1]


def test_the_strategy_reaches_what_is_promised() -> None:
    """Depth 4, twelve paths, empty paths, blocks in conclusions: the property tests above do meet them."""

    search = settings(max_examples=5_000, phases=[Phase.generate], derandomize=True)

    def holds(wanted: Callable[[Block], object]) -> None:
        assert find(trees(), lambda text: any(wanted(b) for b in read(text).walk()), settings=search)

    holds(lambda b: b.depth == 4 and b.parallel)
    holds(lambda b: b.width == 12)
    holds(lambda b: b.width == 1 and not b.parallel)
    holds(lambda b: b.parallel and any(p.close == p.start + 4 for p in b.paths))
    holds(lambda b: b.conclusion and any(inner.parallel for inner in b.conclusion.blocks))


def test_every_path_starts_right_after_the_goal() -> None:
    """`<Path>` has position p(goal-close) + 1, and overlaps the separator there."""
    tree = read("ab" + block("c", "dddd", ""))
    positions = layout(tree).positions
    (goal_close,) = place(tree, "</Goal>")
    assert [positions[i] for i in place(tree, "<Path>")] == [positions[goal_close] + 1] * 3
    assert positions[goal_close + 1] == positions[goal_close] + 1


def test_the_conclusion_starts_right_after_the_longest_path() -> None:
    """`<Conclusion>` has position max p(path-close) + 1."""
    tree = read(block("c", "dddd", ""))
    positions = layout(tree).positions
    (conclusion,) = place(tree, "<Conclusion>")
    assert positions[conclusion] == max(positions[i] for i in place(tree, "</Path>")) + 1


def test_separators_can_advance_the_position_as_in_the_released_engine() -> None:
    """With `advance`, `<Path>` is at p(goal-close) + 2 and `<Conclusion>` at max + 2."""
    tree = read(block("c", "dddd", ""))
    positions = layout(tree, "advance").positions
    (goal_close,), (conclusion,) = place(tree, "</Goal>"), place(tree, "<Conclusion>")
    assert {positions[i] for i in place(tree, "<Path>")} == {positions[goal_close] + 2}
    assert positions[conclusion] == max(positions[i] for i in place(tree, "</Path>")) + 2


def test_a_path_owns_the_separator_after_it() -> None:
    """A later sibling sees neither it nor anything else of the path; the conclusion sees all of it."""
    tree = read(block("a", "b"))
    slow = Slow(tree)
    first, second = tree.blocks[0].paths
    assert first.close is not None
    assert tree.ids[first.close + 1 : first.end] == encode("\n")
    hidden = layout(tree).segments[2].hidden
    assert hidden == ((first.start, second.start),)
    (conclusion,) = place(tree, "<Conclusion>")
    assert all(slow.visible[conclusion][: conclusion + 1])
    assert layout(tree).segments[3].hidden == ()


@pytest.mark.parametrize("text", ["", "abc", block("a"), goal(3), "a</Path>b", goal(0) + "\na"])
def test_what_is_not_forked_has_ordinary_positions(text: str) -> None:
    """Plain text, a block of one outline, one without paths and stray tags are laid out like text."""
    laid = layout(read(text))
    assert laid.positions == list(range(laid.length))
    assert all(not segment.hidden for segment in laid.segments)
    assert laid.predecessors == list(range(-1, laid.length - 1))


def test_a_block_inside_a_sequential_block_is_still_parallel() -> None:
    tree = read(block("a" + block("b", "c")))
    outer, inner = tree.walk()
    assert (outer.parallel, inner.parallel) == (False, True)
    assert layout(tree).positions == Slow(tree).positions
    assert layout(tree).position_delta < 0


def test_a_block_in_a_conclusion_resets_positions_like_any_other() -> None:
    tree = read(block("a", "b", conclusion="c" + block("d", "eee", prefix="1.")))
    positions = layout(tree).positions
    goals, paths = place(tree, "</Goal>"), place(tree, "<Path>")
    assert [positions[i] for i in paths] == [positions[goals[0]] + 1] * 2 + [positions[goals[1]] + 1] * 2


def test_a_joined_text_that_is_prefilled_has_no_structure() -> None:
    tree = read("a" + block("b", "c", dialect="threadweaver"), "threadweaver")
    assert tree.blocks[0].parallel
    assert layout(tree, join="prefill").positions == list(range(len(tree)))


def test_the_first_token_after_a_join_has_no_predecessor() -> None:
    """No single token's logits predict it; each path's first is predicted by the last token before the fork."""
    tree = read("a" + block("b", "c"))
    predecessors = layout(tree).predecessors
    first, second = tree.blocks[0].paths
    assert predecessors[0] == -1
    assert predecessors[first.start] == predecessors[second.start] == first.start - 1
    assert predecessors[second.end] == -1


def test_an_unknown_separator_setting_is_refused_by_value() -> None:
    with pytest.raises(ValueError, match="'overlap' or 'advance', got 'skip'"):
        layout(read("a"), "skip")  # type: ignore[arg-type]


def test_a_tree_of_a_thousand_paths_needs_a_segment_per_path_and_no_more() -> None:
    """Work grows with paths, not with pairs of them; benchmarks/core.py measures how long it takes."""
    tree = parse_ids(encode(block(*["abcdefgh" * 16] * 50)) * 20, BINDINGS["multiverse"])
    assert len(tree) > 128_000
    assert sum(len(b.paths) for b in tree.walk()) == 1_000
    laid = layout(tree)
    assert len(laid.positions) == len(tree)
    assert len(laid.segments) == 1_000 + 20 + 1
    assert sum(len(segment.hidden) for segment in laid.segments) == 1_000 - 20
