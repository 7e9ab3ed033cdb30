"""Life of a block in the controller: map, process, reduce (SEMANTICS sections 1 and 2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import BINDINGS, DIALECTS, Host, block, decode, encode, goal, host

from multiverse import (
    Close,
    Controller,
    FinishReason,
    Fork,
    Join,
    Limits,
    Start,
    Status,
    layout,
    parse_text,
    to_transcript,
)
from multiverse.decoding.strand import derive_seed


def finish(h: Host) -> str:
    """End the request with end-of-sequence; returns the document it made, without the prompt."""
    h.feed(h.root, "<eos>")
    assert h.controller.finish_reason is FinishReason.STOP
    return decode(h.shown, h.controller.binding.dialect.name)


def test_text_goes_on_without_any_action() -> None:
    h = host(prompt="ab")
    assert h.feed(h.root, "abc\n1") == []
    assert (h.root.position, h.root.kv_length) == (7, 7)
    assert finish(h) == "abc\n1<eos>"


def test_goal_close_forks_one_branch_per_outline() -> None:
    """The parent is parked with the separator written; every child starts with path-open and its label."""
    h = host()
    fork, *starts = h.feed(h.root, "a" + goal(3))
    assert isinstance(fork, Fork)
    assert fork.strand is h.root
    assert h.root.tokens == encode("a" + goal(3) + "\n")
    assert [child.label for child in fork.children] == ["1", "2", "3"]
    assert [start.strand for start in starts if isinstance(start, Start)] == list(fork.children)
    assert [decode(child.tokens) for child in fork.children] == ["<Path>\n1:", "<Path>\n2:", "<Path>\n3:"]
    assert h.root.status is Status.PARKED
    assert [child.key for child in h.running] == [(0, 0), (0, 1), (0, 2)]


def test_children_start_at_goal_close_plus_one_and_share_the_parents_kv() -> None:
    h = host()
    h.feed(h.root, goal(2))
    after_goal = len(encode(goal(2)))  # positions count from 0, so this is p(goal-close) + 1
    assert list(h.starts.values()) == [after_goal] * 2
    assert [child.kv_length - len(child.header) for child in h.running] == [after_goal + 1] * 2


def test_labels_come_from_the_outlines_numbers() -> None:
    """Nested labels as they are; an outline without a number gets its ordinal, so none is dropped."""
    h = host()
    fork = h.feed(h.root, goal(4, labels=["1.2", "b", " 7", "10."]))[0]
    assert isinstance(fork, Fork)
    assert [child.label for child in fork.children] == ["1.2", "2", "7", "10"]


@pytest.mark.parametrize(
    ("outlines", "labels"),
    [
        (["3 a", "3 b"], ["1", "2"]),
        (["1 2: a", "1 3: b"], ["1", "2"]),
        (["2: a", "2: b"], ["1", "2"]),
        (["2: b", "b"], ["1", "2"]),
        (["b", "7: b", "1) a"], ["1", "2", "3"]),
        (["1", "1"], ["1", "2"]),
        (["2: a", "1: b"], ["2", "1"]),
        (["7", "b"], ["7", "2"]),
    ],
)
def test_no_two_branches_have_the_same_label(outlines: list[str], labels: list[str]) -> None:
    """On a clash all of the block get their ordinals. The engine and whoever reads the text agree."""
    h = host()
    text = goal(len(outlines), labels=outlines).replace(": a", "")
    fork = h.feed(h.root, text)[0]
    assert isinstance(fork, Fork)
    assert [child.label for child in fork.children] == labels
    assert len({child.header for child in fork.children}) == len(labels)
    assert [outline.label for outline in parse_text(text).blocks[0].outlines] == labels


_outline = st.text("12 .:)ab\n", max_size=8)


@given(st.lists(_outline, min_size=2, max_size=5), st.integers(0, 60))
def test_labels_are_distinct_and_the_same_for_engine_and_parser(outlines: list[str], cut: int) -> None:
    """Whatever outlines say, and wherever in the goal the prompt ended."""
    text = goal(len(outlines), labels=outlines)
    ids = encode(text)
    cut %= len(ids)
    h = Host(Controller(BINDINGS["multiverse"], None, ids[:cut]))
    (fork, *_) = h.feed(h.root, ids[cut:])
    assert isinstance(fork, Fork)
    labels = [child.label for child in fork.children]
    assert len(set(labels)) == len(labels)
    assert labels == [outline.label for outline in parse_text(text).blocks[0].outlines]
    assert labels == [outline.label for outline in to_transcript(h.controller).blocks[0].outlines]


def test_the_last_path_close_joins() -> None:
    """The branches are spliced in outline order, whichever ends first, and the conclusion header is written."""
    h = host()
    h.feed(h.root, goal(3))
    first, second, third = h.running
    assert [type(a) for a in h.feed(third, "c</Path>")] == [Close]
    assert [type(a) for a in h.feed(first, "</Path>")] == [Close]
    close, join = h.feed(second, "dddd</Path>")
    assert isinstance(close, Close)
    assert close.reason is FinishReason.PATH_CLOSE
    assert decode(second.tokens) == "<Path>\n2:dddd</Path>\n"
    assert isinstance(join, Join)
    assert join.strand is h.root
    ((offset, children),) = h.root.forks
    assert children == (first, second, third)
    assert decode(h.root.tokens[offset:]) == "<Conclusion>"
    assert h.root.position_at(offset) == len(encode(goal(3))) + len(encode("<Path>\n2:dddd</Path>"))
    h.feed(h.root, "h</Conclusion>\n</Parallel>a")
    paths = "<Path>\n1:</Path>\n<Path>\n2:dddd</Path>\n<Path>\n3:c</Path>\n"
    assert finish(h) == goal(3) + "\n" + paths + "<Conclusion>h</Conclusion>\n</Parallel>a<eos>"


@pytest.mark.parametrize("separators", ["overlap", "advance"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_forked_block_reads_as_if_it_had_been_written(dialect: str, separators: str) -> None:
    """Prompt and completion parse to a well-formed block, laid out at the positions handed out."""
    h = host(dialect, prompt="ab", separators=separators)
    h.feed(h.root, goal(2, dialect))
    path_close = h.controller.binding.dialect.path[1]
    for child, text in zip(list(h.running), ["", "abc"], strict=True):
        h.feed(child, text + path_close)
    assert h.running == [h.root]
    written = decode(h.shown, dialect)
    whole = block("", "abc", dialect=dialect)
    assert whole.startswith(written)
    h.feed(h.root, whole[len(written) :] + "a")
    transcript = to_transcript(h.controller)
    assert decode(transcript.ids, dialect) == "ab" + whole + "a"
    assert transcript.well_formed
    join = h.controller.binding.dialect.join
    assert layout(transcript, h.controller.separators, join).next_position == h.root.position
    assert h.root.kv_length == len(transcript)


def test_blocks_nest_in_branches_and_in_conclusions() -> None:
    h = host()
    h.feed(h.root, goal(2))
    outer, other = h.running
    h.feed(outer, "a" + goal(2, prefix="1."))
    assert outer.status is Status.PARKED
    inner = [s for s in h.running if s.parent is outer]
    assert [(s.key, s.label) for s in inner] == [((0, 0, 0, 0), "1.1"), ((0, 0, 0, 1), "1.2")]
    h.feed(other, "b</Path>")
    for strand in inner:
        h.feed(strand, "c</Path>")
    h.feed(outer, "</Conclusion></Parallel></Path>")
    assert h.running == [h.root]
    h.feed(h.root, goal(2))
    assert [s.key for s in h.running] == [(1, 0), (1, 1)]
    for strand in list(h.running):
        h.feed(strand, "</Path>")
    h.feed(h.root, "</Conclusion></Parallel></Conclusion></Parallel>")
    transcript = to_transcript(h.controller)
    assert [b.depth for b in transcript.walk()] == [1, 2, 2]
    assert transcript.well_formed
    assert layout(transcript).next_position == h.root.position


def test_path_close_ends_a_branch_only_at_its_own_level() -> None:
    """In a sequential block inside a branch, `</Path>` closes the path there and the branch goes on."""
    h = host(limits=Limits(max_depth=1))
    h.feed(h.root, goal(2))
    child = h.running[0]
    assert h.feed(child, block("a", "b") + "c")[0].reason == "too_deep"
    assert child.status is Status.RUNNING
    h.feed(child, "</Path>")
    assert child.status is Status.CLOSED


def test_stray_tags_are_ordinary_text() -> None:
    h = host()
    assert h.feed(h.root, "</Path>a</Outline><Conclusion></Parallel>") == []
    assert h.running == [h.root]


def test_strands_have_seeds_of_their_own_the_same_everywhere() -> None:
    """The root keeps the request's seed; a child's is a fixed function of seed and key."""
    assert derive_seed(7, ()) == 7
    seeds = [derive_seed(7, key) for key in [(0, 0), (0, 1), (1, 0), (0, 0, 0, 0)]] + [derive_seed(8, (0, 0))]
    assert len(set(seeds)) == 5
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert derive_seed(7, (0, 1)) == 0x2C827970BDB45C6F


def test_the_join_of_threadweaver_prefills_the_text_causally() -> None:
    """The parent goes on at the position that equals its KV length, with no header."""
    h = host("threadweaver", prompt="ab")
    h.feed(h.root, goal(2, "threadweaver"))
    for child in list(h.running):
        h.feed(child, "abc</Thread>")
    (join,) = [a for a in h.log if isinstance(a, Join)]
    ((offset, _),) = join.strand.forks
    assert h.root.tokens[offset:] == [], "the model closes the block"
    assert h.root.position_delta == 0
    assert h.root.kv_length == len(to_transcript(h.controller))
    assert BINDINGS["threadweaver"].dialect.join == "prefill"
