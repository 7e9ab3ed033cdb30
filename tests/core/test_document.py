"""A request as one transcript, with the log-probabilities in its order, and figures about it."""

from __future__ import annotations

import pytest
from toy import BINDINGS, DIALECTS, block, decode, encode, goal, host

from multiverse import Limits, Reason, layout, parse_ids, statistics, to_transcript
from multiverse.structure.binding import Binding


def figures(text: str, start: int = 0, dialect: str = "multiverse", separators: str = "overlap"):
    binding: Binding = BINDINGS[dialect]
    return statistics(parse_ids(encode(text, dialect), binding), start, separators)


def test_plain_text_has_parallel_degree_one() -> None:
    found = figures("abc")
    assert (found.tokens, found.critical_path, found.parallel_degree) == (3, 3, 1.0)
    assert (found.blocks, found.max_width, found.depth, found.well_formed) == (0, 0, 0, True)


def test_nothing_has_parallel_degree_one() -> None:
    assert (figures("").critical_path, figures("").parallel_degree) == (0, 1.0)


def test_parallel_degree_is_tokens_over_critical_path() -> None:
    """Three equal paths of 40 letters, counted by hand."""
    text = block(*["abcdefgh" * 5] * 3)
    tokens = len(encode(text))
    path = len(encode("<Path>\n1:" + "abcdefgh" * 5 + "</Path>"))
    header = len(encode(goal(3)))
    rest = len(encode("<Conclusion>h</Conclusion>\n</Parallel>"))
    found = figures(text)
    assert found.critical_path == header + path + rest
    assert found.parallel_degree == tokens / (header + path + rest)
    assert found.parallel_degree > 1.5


def test_separators_that_advance_lengthen_the_critical_path() -> None:
    """By one at the fork and one at the join."""
    text = block("a", "b")
    assert figures(text, separators="advance").critical_path == figures(text).critical_path + 2


def test_only_what_follows_the_prompt_is_counted() -> None:
    prompt = "ab" + block("a", "b") + "</Path>"
    whole = prompt + block("a" + block("b", "c", prefix="1."), "b", "c")
    found = figures(whole, start=len(encode(prompt)))
    assert found.tokens == len(encode(whole)) - len(encode(prompt))
    assert (found.blocks, found.parallel_blocks, found.max_width, found.depth) == (2, 2, 3, 2)
    assert found.well_formed
    assert found.first_violation is None
    assert not figures(whole).well_formed


def test_fallbacks_are_counted_by_reason() -> None:
    h = host(limits=Limits(max_branches=2))
    for text in (goal(3), "</Parallel>", goal(1), "</Parallel>", goal(1)):
        h.feed(h.root, text)
    found = statistics(to_transcript(h.controller))
    assert found.fallbacks == {"single_outline": 2, "too_wide": 1}
    assert (found.blocks, found.parallel_blocks) == (3, 0)
    assert layout(to_transcript(h.controller)).position_delta == 0


def test_what_was_not_forked_is_sequential_even_if_it_looks_parallel() -> None:
    """The document says what was done, not what might have been: positions are those at which it was computed."""
    h = host(limits=Limits(max_depth=0))
    h.feed(h.root, block("a", "b"))
    tree = to_transcript(h.controller)
    assert tree.blocks[0].reason is Reason.TOO_DEEP
    assert len(tree.blocks[0].paths) == 2
    assert layout(tree).next_position == h.root.position == len(tree)


def test_figures_are_json_ready() -> None:
    found = figures(block("a", "b"))
    assert found.to_dict()["max_width"] == 2
    assert set(found.to_dict()) == set(found.__dataclass_fields__)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_logprobs_come_in_document_order(dialect: str) -> None:
    """One per token, the prompt's are `None`; each stands where its token does."""
    h = host(dialect, prompt="ab")
    h.feed(h.root, goal(2, dialect))
    first, second = h.running
    h.feed(second, "cd" + h.controller.binding.dialect.path[1])
    h.feed(first, "ef" + h.controller.binding.dialect.path[1])
    h.feed(h.root, "g")
    reported = {s.key: [-float(token) for token in s.tokens] for s in h.root.walk()}
    tree = to_transcript(h.controller, reported)
    assert tree.logprobs == [None, None, *(-float(token) for token in tree.ids[2:])]


def test_a_growing_request_can_be_looked_at() -> None:
    """Before the join the paths so far are there; the transcript isn't well formed yet, and nothing is changed."""
    h = host()
    h.feed(h.root, goal(2))
    h.feed(h.running[1], "b")
    tree = to_transcript(h.controller)
    assert decode(tree.ids).endswith("\n<Path>\n1:<Path>\n2:b")
    assert [p.label for p in tree.blocks[0].paths] == ["1", "2"]
    assert not tree.well_formed
    h.feed(h.running[0], "a")
    assert len(to_transcript(h.controller)) == len(tree) + 1


def test_a_waiting_branch_is_not_in_the_document_yet() -> None:
    h = host(limits=Limits(max_parallel=1))
    h.feed(h.root, goal(3))
    assert len(to_transcript(h.controller).blocks[0].paths) == 1
