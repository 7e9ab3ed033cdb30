"""A controller whose prompt holds blocks, finished or open (SEMANTICS section 2)."""

from __future__ import annotations

import pytest
from toy import Host, block, decode, encode, goal, host

from multiverse import (
    Fallback,
    FinishReason,
    Fork,
    Limits,
    Reason,
    layout,
    statistics,
    to_transcript,
)


def test_a_prompt_with_finished_blocks_is_laid_out_as_such() -> None:
    """A follow-up turn goes on at the position the block ends at, not at its length."""
    h: Host = host(prompt="ab" + block("abc", "abc") + "c")
    assert h.root.kv_length == len(h.controller.prompt.ids)
    assert h.root.position == h.controller.prompt.layout.next_position < h.root.kv_length
    h.feed(h.root, "abc")
    assert layout(to_transcript(h.controller)).next_position == h.root.position


@pytest.mark.parametrize("separator", ["", "\n"])
@pytest.mark.parametrize("separators", ["overlap", "advance"])
def test_a_prompt_that_ends_at_goal_close_forks_at_begin(separator: str, separators: str) -> None:
    """Whether the separator is there or not; only what is missing is written."""
    h = host(prompt="a" + goal(2) + separator, separators=separators)
    fork = h.log[0]
    assert isinstance(fork, Fork)
    assert decode(h.root.tokens) == ("" if separator else "\n")
    after_goal = 1 + len(encode(goal(2)))
    advanced = separators == "advance"
    assert list(h.starts.values()) == [after_goal + advanced] * 2
    for child in list(h.running):
        h.feed(child, "b</Path>")
    assert layout(to_transcript(h.controller), separators).next_position == h.root.position


@pytest.mark.parametrize("tail", ["", "\n", "\n\n "])
def test_a_goal_closed_in_the_prompt_that_is_not_forked_stays_sequential(tail: str) -> None:
    """However many separators follow it: the reason is kept, and the document says where each token was computed."""
    h = host(prompt="a" + goal(3) + tail, limits=Limits(max_branches=2))
    assert h.log == [Fallback(h.root, Reason.TOO_WIDE)]
    h.feed(h.root, block("b", "c", "d").removeprefix(goal(3) + "\n") + "e")
    transcript = to_transcript(h.controller)
    assert statistics(transcript).fallbacks == {"too_wide": 1}
    assert layout(transcript).next_position == h.root.position == len(transcript)


def test_an_open_block_in_a_prompt_is_continued_in_its_goal() -> None:
    h = host(prompt="<Parallel>\n<Goal>\n<Outline>\n1.1: a\n</Outline>\n")
    (fork, *_) = h.feed(h.root, "<Outline>\n1.2: b\n</Outline>\n</Goal>")
    assert isinstance(fork, Fork)
    assert [child.label for child in fork.children] == ["1.1", "1.2"]


@pytest.mark.parametrize("cut", range(goal(2).index("\n1"), goal(2).index("\n1") + 8))
def test_a_label_may_begin_in_the_prompt_and_end_in_the_completion(cut: int) -> None:
    whole = goal(2, labels=["2.13", "3"])
    h = host(prompt=whole[:cut])
    (fork, *_) = h.feed(h.root, whole[cut:])
    assert isinstance(fork, Fork)
    assert [child.label for child in fork.children] == ["2.13", "3"]
    assert [outline.label for outline in to_transcript(h.controller).blocks[0].outlines] == ["2.13", "3"]


def test_an_open_conclusion_in_a_prompt_is_continued() -> None:
    whole = block("a", "b")
    h = host(prompt=whole[: whole.index("</Conclusion>")])
    h.feed(h.root, "</Conclusion>\n</Parallel>")
    transcript = to_transcript(h.controller)
    assert transcript.well_formed
    assert layout(transcript).next_position == h.root.position


def test_a_prompt_cut_between_paths_is_ordinary_text() -> None:
    """Its branches can't be taken up again one by one."""
    whole = block("a", "b")
    cut = whole[: whole.index("<Path>\n2:") + 6]
    h = host(prompt=cut)
    assert h.root.position == len(encode(cut))
    h.feed(h.root, "b</Path>")
    assert h.running == [h.root]
    assert h.root.position == len(to_transcript(h.controller))


def test_a_full_context_ends_the_request_at_begin() -> None:
    h = host(limits=Limits(context_length=3), prompt="abc")
    assert h.controller.finish_reason is FinishReason.LENGTH
    assert h.shown == []
