"""What an engine writes itself can be found in the finished text."""

from __future__ import annotations

import pytest
from toy import BINDINGS, DIALECTS, block, encode, goal, host

from multiverse import get_dialect, parse_ids, to_transcript
from multiverse.structure.injected import injected


@pytest.mark.parametrize("dialect", DIALECTS)
def test_it_is_what_the_controller_wrote(dialect: str) -> None:
    """Every token of an answer is either one that was sampled or one of these."""
    d, h, sampled = get_dialect(dialect), host(dialect), 0
    for text in (goal(3, dialect), *(body + d.path[1] for body in ("ab", "c", "def"))):
        h.feed(h.running[0], text)
        sampled += len(encode(text, dialect))
    last = "gh<eos>" if d.engine_closes else "</Parallel>gh<eos>"
    h.feed(h.root, last)
    tree = to_transcript(h.controller)
    found = list(injected(tree, BINDINGS[dialect]))
    assert all(tree.ids[start : start + len(tokens)] == list(tokens) for start, tokens in found)
    assert sum(len(tokens) for _, tokens in found) == len(tree) - sampled - len(encode(last, dialect))
    assert len(found) == 1 + 2 * 3 + 1
    assert [block.parallel for block in tree.blocks] == [True]
    assert not tree.stray_text


def test_a_block_that_is_not_forked_has_none() -> None:
    tree = parse_ids(encode(block("a")), BINDINGS["multiverse"])
    assert not list(injected(tree, BINDINGS["multiverse"]))
