"""Every input parses, no input is changed, and what breaks the grammar is listed with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import dialects, text_soup, token_soup, trees
from toy import BINDINGS, block, encode, goal

from multiverse import Reason, Transcript, Violation, parse_ids, parse_text

DATA = Path(__file__).parents[1] / "data" / "malformed.jsonl"
REAL = Path(__file__).parents[3] / "shared" / "transcripts" / "multiverse32b.jsonl"
EXAMPLES = [json.loads(line) for line in DATA.read_text().splitlines()]


@given(st.data(), dialects)
def test_text_to_tree_to_text_is_the_identity(data: st.DataObject, dialect: str) -> None:
    """For every input, well formed or not."""
    text = data.draw(st.one_of(text_soup(dialect), st.text(), trees(dialect)))
    assert parse_text(text, dialect).text == text


@given(st.data(), dialects)
def test_ids_to_tree_to_ids_is_the_identity(data: st.DataObject, dialect: str) -> None:
    ids = data.draw(token_soup(dialect))
    assert parse_ids(ids, BINDINGS[dialect]).ids == ids


@given(st.data(), dialects)
def test_json_and_back_is_the_identity(data: st.DataObject, dialect: str) -> None:
    tree = parse_ids(data.draw(token_soup(dialect)), BINDINGS[dialect])
    tree.logprobs = [None, *[-0.5] * (len(tree) - 1)] if len(tree) else None
    assert Transcript.from_dict(json.loads(json.dumps(tree.to_dict()))) == tree


@given(st.data(), dialects)
def test_trees_hold_together_whatever_was_parsed(data: st.DataObject, dialect: str) -> None:
    """Spans nest and are in order; paths of a block touch each other; violations are in order and in range."""
    tree = parse_ids(data.draw(token_soup(dialect)), BINDINGS[dialect])
    for found in tree.walk():
        assert 0 <= found.start < found.end <= len(tree)
        for left, right in zip(found.paths, found.paths[1:], strict=False):
            assert left.end == right.start
        for node in [*found.outlines, *found.paths, *([found.conclusion] if found.conclusion else [])]:
            assert found.start <= node.start < node.end <= found.end
        for body in [*found.paths, *([found.conclusion] if found.conclusion else [])]:
            assert all(body.start < inner.start and inner.end <= body.end for inner in body.blocks)
            assert all(inner.depth == found.depth + 1 for inner in body.blocks)
    places = [violation.index for violation in tree.violations]
    assert places == sorted(places)
    assert all(0 <= place <= len(tree) for place in places)


@given(st.data(), dialects)
def test_what_follows_the_grammar_is_well_formed(data: st.DataObject, dialect: str) -> None:
    text = data.draw(trees(dialect))
    by_ids, by_text = parse_ids(encode(text, dialect), BINDINGS[dialect]), parse_text(text, dialect)
    assert by_ids.violations == by_text.violations == []
    assert [[p.label for p in b.paths] for b in by_ids.walk()] == [[p.label for p in b.paths] for b in by_text.walk()]


@given(st.data(), dialects)
def test_a_well_formed_transcript_cut_off_inside_a_block_is_not(data: st.DataObject, dialect: str) -> None:
    """There is one violation, and its place is the end."""
    ids = encode("a" + data.draw(trees(dialect)), dialect)
    cut = ids[: data.draw(st.integers(1, len(ids)))]
    violations = parse_ids(cut, BINDINGS[dialect]).violations
    whole = parse_ids(ids, BINDINGS[dialect])
    inside = any(b.start < len(cut) < b.end for b in whole.blocks)
    if dialect == "multiverse":  # where a block ends by a tag, not with what follows its last path
        assert bool(violations) == inside
    assert all(v.index == len(cut) and v.found == "end of text" for v in violations)
    assert len(violations) <= 1


@pytest.mark.parametrize("example", EXAMPLES, ids=[example["id"] for example in EXAMPLES])
def test_each_kind_of_violation_is_told_with_its_place(example: dict) -> None:
    """The first place where it breaks; blocks and paths are recovered as far as the grammar allows."""
    tree = parse_text(example["text"])
    assert (str(tree.violations[0]) if tree.violations else None) == example["first_violation"]
    assert tree.well_formed == (example["first_violation"] is None)
    assert len(list(tree.walk())) == example["blocks"]
    assert sum(len(b.paths) for b in tree.walk()) == example["paths"]
    assert tree.text == example["text"]


if REAL.exists():

    def test_real_answers_of_multiverse_32b() -> None:
        """80 answers: 65 well formed, 15 not, each of those with the first violation and its place; 49 with a block."""
        texts = [json.loads(line)["response"] for line in REAL.read_text().splitlines()]
        parsed = [parse_text(text) for text in texts]
        assert [tree.text for tree in parsed] == texts
        broken = [tree for tree in parsed if not tree.well_formed]
        assert (len(parsed), len(parsed) - len(broken), len(broken)) == (80, 65, 15)
        assert sum(bool(tree.blocks) for tree in parsed) == 49
        for tree in broken:
            first = tree.violations[0]
            assert first.offset is not None
            assert str(first).endswith(f"at character {first.offset}")
            assert first.found == "end of text" or tree.text.startswith(first.found, first.offset)


def test_violations_in_ids_are_placed_by_token_in_texts_by_character() -> None:
    text = "ab</Path>"
    assert parse_text(text).violations[0].offset == 2
    (violation,) = parse_ids(encode(text), BINDINGS["multiverse"]).violations
    assert violation == Violation(2, None, "</Path>", "</Path> is not expected outside of a block")
    assert str(violation).endswith("at token 2")


def test_a_tree_has_the_spans_of_its_text() -> None:
    text = "ab" + block("c", "d") + "e"
    tree = parse_text(text)
    (found,) = tree.blocks
    spell = lambda start, end: "".join(map(str, tree.tokens[start:end]))  # noqa: E731
    assert spell(found.start, found.end) == block("c", "d")
    assert [spell(o.start, o.end) for o in found.outlines] == [f"<Outline>\n{i}: a\n</Outline>" for i in (1, 2)]
    assert [spell(p.start, p.end) for p in found.paths] == ["<Path>\n1:c</Path>\n", "<Path>\n2:d</Path>\n"]
    assert found.conclusion is not None
    assert spell(found.conclusion.start, found.conclusion.end).startswith("<Conclusion>h</Conclusion>")
    assert found.goal_close is not None
    assert tree.tokens[found.goal_close] == "</Goal>"


def test_a_path_takes_its_label_from_its_text_its_outline_or_its_place() -> None:
    text = block("a", "b", "c").replace("<Path>\n2:", "<Path>\nx").replace("<Outline>\n2:", "<Outline>\n1.7:")
    tree = parse_text(text.replace("<Outline>\n3:", "<Outline>\ny").replace("<Path>\n3:", "<Path>\nz"))
    assert [o.label for o in tree.blocks[0].outlines] == ["1", "1.7", "3"]
    assert [p.label for p in tree.blocks[0].paths] == ["1", "1.7", "3"]


def test_a_block_the_engine_would_not_fork_is_sequential() -> None:
    for width, reason in [(0, Reason.NO_OUTLINE), (1, Reason.SINGLE_OUTLINE), (2, None)]:
        assert parse_text(goal(width)).blocks[0].reason is reason


def test_a_nested_block_of_a_dialect_without_nesting_is_a_violation_and_sequential() -> None:
    inner = block("b", "c", dialect="npr")
    tree = parse_text(block("a" + inner, "d", dialect="npr"), "npr")
    outer, nested = tree.walk()
    assert (outer.parallel, nested.parallel, nested.reason) == (True, False, Reason.TOO_DEEP)
    assert "a block inside a block is not part of npr" in str(tree.violations[0])


def test_the_end_of_a_turn_ends_what_is_open() -> None:
    """What comes in the next turn is outside of the block again."""
    tree = parse_ids(encode(goal(2) + "\n<Path>\n1:a<eos>b" + block("c", "d")), BINDINGS["multiverse"])
    assert [v.message for v in tree.violations] == ["the turn ends inside a block"]
    assert [b.depth for b in tree.walk()] == [1, 1]


def test_very_deep_nesting_is_survived() -> None:
    """Beyond 100 levels a block is ordinary text, so nothing recurses without bound."""
    text = (goal(2) + "\n<Path>\n1:") * 2_000
    tree = parse_text(text)
    assert max(b.depth for b in tree.walk()) == 100
    assert Transcript.from_dict(json.loads(json.dumps(tree.to_dict()))).text == text


def test_the_text_of_ids_is_the_tokenizers_business() -> None:
    with pytest.raises(TypeError):
        _ = parse_ids(encode("ab"), BINDINGS["multiverse"]).text
