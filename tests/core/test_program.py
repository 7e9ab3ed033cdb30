"""A prompt that a program put together is laid out as SEMANTICS section 2 says, tags in it included."""

from __future__ import annotations

import pytest
from slow import Slow
from toy import BINDINGS, Host, block, encode, goal

from multiverse import Controller, layout
from multiverse.decoding.document import to_transcript
from multiverse.decoding.program import ProgramPrompt, Spans, shifted
from multiverse.decoding.replay import part_offsets, parts

BINDING = BINDINGS["multiverse"]


def join(prefix: str, *branches: str, rest: str = "") -> tuple[list[int], Spans]:
    """Ids and spans of a text with one block."""
    ids, spans = encode(prefix), []
    for branch in branches:
        start = len(ids)
        ids += encode(branch)
        spans.append([start, len(ids), 0, []])
    return ids + encode(rest), [spans]


def test_every_branch_begins_behind_the_prefix_and_the_rest_behind_the_longest() -> None:
    prompt = ProgramPrompt(*join("ab", "cde", "f", rest="gh"), BINDING)
    assert prompt.layout.positions == [0, 1, 2, 3, 4, 2, 5, 6]
    assert [segment.hidden for segment in prompt.layout.segments] == [(), (), ((2, 5),), ()]
    assert prompt.next_position == 7


def test_an_offset_moves_a_branch_and_what_follows_the_join() -> None:
    ids, spans = join("ab", "c", "d", rest="e")
    spans[0][1][2] = 10
    assert ProgramPrompt(ids, spans, BINDING).layout.positions == [0, 1, 2, 12, 13]
    alone = ProgramPrompt(encode("abde"), [[[2, 2, 10, []]]], BINDING)
    assert alone.layout.positions == [0, 1, 12, 13]


def test_branches_inside_branches() -> None:
    ids, ((outer, other),) = join("ab", "cdefg", "h", rest="a")
    outer[3] = [[[3, 5, 0, []], [5, 6, 0, []]]]
    prompt = ProgramPrompt(ids, [[outer, other]], BINDING)
    assert prompt.layout.positions == [0, 1, 2, 3, 4, 3, 5, 2, 6]
    slow = Slow(prompt.transcript)
    assert slow.positions == prompt.layout.positions


@pytest.mark.parametrize("where", ["before", "inside", "after"])
def test_tags_mean_what_they_always_do(where: str) -> None:
    written = "a" + block("bb", "c") + "d"
    texts = {"before": "e", "inside": "f", "after": "g"} | {where: written}
    ids, spans = join(texts["before"], texts["inside"], "hh", rest=texts["after"])
    prompt = ProgramPrompt(ids, spans, BINDING)
    slow = Slow(prompt.transcript)
    assert sum(found.parallel for found in prompt.transcript.walk()) == 2
    assert prompt.layout.positions == slow.positions
    assert prompt.layout.predecessors == [slow.predecessor(t) for t in range(len(ids))]


def test_a_request_goes_on_from_the_join_and_may_fork() -> None:
    prompt = ProgramPrompt(*join("ab", "cde", "f", rest="g"), BINDING)
    host = Host(Controller(BINDING, prompt=prompt))
    host.feed(host.root, "h" + goal(2))
    for branch in list(host.running):
        host.feed(branch, "a</Path>")
    host.feed(host.root, "b</Conclusion>\n</Parallel>")
    transcript = to_transcript(host.controller)
    assert transcript.ids[: len(prompt.ids)] == prompt.ids
    assert [len(found.paths) for found in transcript.walk()] == [2, 2]
    assert Slow(transcript).positions == layout(transcript).positions
    assert layout(transcript).next_position == host.root.position


def test_an_open_goal_behind_the_join_forks_at_once() -> None:
    host = Host(Controller(BINDING, prompt=ProgramPrompt(*join("ab", "c", "d", rest="e" + goal(3)), BINDING)))
    assert len(host.running) == 3


def test_it_is_computed_part_by_part_as_a_program_would_have() -> None:
    prompt = ProgramPrompt(*join("ab", "cde", "f", rest="g"), BINDING)
    root = parts(Controller(BINDING, prompt=prompt), prompt.strand)
    assert [(part.tokens, part.delta) for part in root] == [(encode("ab"), 0), (encode("g"), -1)]
    assert [(child.tokens, child.deltas) for child in root[0].children] == [(encode("cde"), [0]), (encode("f"), [0])]
    assert part_offsets(prompt.strand) == [0, 6]


def test_spans_can_be_moved() -> None:
    assert shifted([[[1, 4, 7, [[[2, 3, 0, []]]]]]], 10) == [[[11, 14, 7, [[[12, 13, 0, []]]]]]]
