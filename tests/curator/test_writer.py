"""Documents are written in any dialect, parse as planned, and hold every sentence as it was."""

from __future__ import annotations

import pytest

from multiverse import parse_text, registry
from multiverse.curator.artefacts import MapReduce, Plan, Refill
from multiverse.curator.checks.grammar import check_grammar, foreign_tags, plain
from multiverse.curator.stages import edited
from multiverse.curator.writer import Writer

SENTENCES = ["We begin. ", "Part $a < b$ & c.\n\n", "More of it. ", "Part \\frac{1}{2}. ", "Then the end."]
REFILL = Refill.model_validate({"sentences": {"1": 1, "2": "2-3", "3": 4, "4": 5}})
PLAN = Plan.model_validate({"plan": ["1", {"parallel": [["2"], ["3"]]}, "4"]})
BLOCK = MapReduce(goal="Side by side.", outlines=["the first", "the second"], conclusion="Both are done.")


@pytest.mark.parametrize("name", ["multiverse", "npr", "threadweaver"])
def test_every_dialect_gets_a_well_formed_document_with_all_sentences(name: str) -> None:
    dialect = registry.get(name)
    document = Writer(dialect, SENTENCES, REFILL).document(PLAN, [BLOCK])
    tree = parse_text(document, dialect)
    assert tree.well_formed
    assert [(block.parallel, block.width, len(block.paths)) for block in tree.blocks] == [(True, 2, 2)]
    assert check_grammar(document, PLAN.plan, dialect) == []
    text = plain(document, dialect)
    assert all(sentence.strip() in text for sentence in SENTENCES)
    assert all(words in text for words in (BLOCK.goal, *BLOCK.outlines, BLOCK.conclusion))


def test_the_multiverse_dialect_is_written_as_the_released_model_writes_it() -> None:
    document = Writer(registry.get("multiverse"), SENTENCES, REFILL).document(PLAN, [BLOCK])
    assert document == (
        "We begin.\nSide by side.\n<Parallel>\n<Goal>\n<Outline>\n1: the first\n</Outline>\n<Outline>\n2: the second\n"
        "</Outline>\n</Goal>\n<Path>\n1: Part $a < b$ & c.\n\nMore of it.\n</Path>\n<Path>\n2: Part \\frac{1}{2}.\n"
        "</Path>\n<Conclusion>\nBoth are done.\n</Conclusion>\n</Parallel>\nThen the end."
    )


def test_inner_blocks_are_labelled_after_the_path_they_are_in() -> None:
    plan = Plan.model_validate({"plan": [{"parallel": [["1"], ["2", {"parallel": [["3"], ["4"]]}]]}]})
    document = Writer(registry.get("multiverse"), SENTENCES, REFILL).document(plan, [BLOCK, BLOCK])
    outer, inner = parse_text(document).walk()
    assert [path.label for path in outer.paths] == ["1", "2"]
    assert [path.label for path in inner.paths] == ["2.1", "2.2"]
    assert check_grammar(document, plan.plan, registry.get("multiverse")) == []


@pytest.mark.parametrize("text", ["see </Path>", "<Goal>", "<Parallel>\n<Goal>\n</Goal>\n</Parallel>", "</Outline>"])
def test_tags_in_texts_are_found_by_the_parser(text: str) -> None:
    block = BLOCK.model_copy(update={"conclusion": text})
    document = Writer(registry.get("multiverse"), SENTENCES, REFILL).document(PLAN, [block])
    assert "write no tags" in check_grammar(document, PLAN.plan, registry.get("multiverse"))[0]


def test_tags_are_known_from_signs_that_only_look_like_them() -> None:
    dialect = registry.get("multiverse")
    assert foreign_tags("a <Path> here", dialect) == ["<Path>"]
    assert foreign_tags("a < b, <b>, x > <path>", dialect) == []


def test_an_edit_keeps_the_white_space_behind_its_sentence() -> None:
    block = BLOCK.model_copy(update={"edits": {2: "Part b."}})
    assert edited(SENTENCES, block)[1] == "Part b.\n\n"
