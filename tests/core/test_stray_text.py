"""Between the parts of a block an engine that forks writes separators and nothing else; what else is there is told."""

from __future__ import annotations

import pytest
from toy import BINDINGS, DIALECTS, block, encode

from multiverse import Transcript, get_dialect, parse_ids, parse_text
from multiverse.decoding.document import statistics


def read(text: str, dialect: str = "multiverse", ids: bool = False) -> tuple[Transcript, list[str]]:
    """The tree and what stands in its stray places."""
    tree = parse_ids(encode(text, dialect), BINDINGS[dialect]) if ids else parse_text(text, dialect)
    spell = BINDINGS[dialect]._tokenizer.decode if ids else "".join
    return tree, [spell(tree.tokens[start:end]) for start, end in tree.stray_text]


@pytest.mark.parametrize("ids", [False, True], ids=["text", "ids"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_an_engine_writes_is_not_stray(dialect: str, ids: bool) -> None:
    tree, found = read("a" + block("b", "c", "d", dialect=dialect) + "\n\nab", dialect, ids)
    assert tree.well_formed
    assert tree.blocks[0].parallel
    assert found == []


@pytest.mark.parametrize("ids", [False, True], ids=["text", "ids"])
@pytest.mark.parametrize(
    ("old", "new", "stray"),
    [
        ("</Goal>\n", "</Goal>\nab\n", "\nab\n"),
        ("</Goal>\n", "</Goal> \n", " \n"),
        ("</Path>\n<Path>", "</Path>\n\n<Path>", "\n\n"),
        ("</Path>\n<Path>", "</Path>\nh.\n<Path>", "\nh.\n"),
        ("</Path>\n<Conclusion>", "</Path>\n\n<Conclusion>", "\n\n"),
        ("</Path>\n<Conclusion>", "</Path>ab<Conclusion>", "ab"),
    ],
)
def test_each_place_is_found_and_the_block_stays_well_formed(old: str, new: str, stray: str, ids: bool) -> None:
    tree, found = read("a" + block("b", "c").replace(old, new), ids=ids)
    assert found == [stray]
    assert tree.well_formed
    assert statistics(tree).stray_text == 1


def test_it_belongs_to_the_path_before_it() -> None:
    tree, _ = read(block("b", "c").replace("</Path>\n<Path>", "</Path>\nab\n<Path>"))
    first, second = tree.blocks[0].paths
    assert "".join(tree.tokens[first.start : first.end]).endswith("</Path>\nab\n")
    assert second.start == first.end


def test_places_are_counted_in_nested_blocks_too_and_only_from_a_given_token_on() -> None:
    stray = block("b", "c", sep="\n\n")
    tree, found = read(stray + "a" + block(stray, "c"))
    assert len(found) == 2 * 3
    assert statistics(tree, start=tree.blocks[1].start).stray_text == 3
    assert Transcript.from_dict(tree.to_dict()) == tree


def test_a_newline_between_threads_is_stray_and_none_is_not() -> None:
    """`threadweaver` puts one thread right behind the other."""
    assert read(block("b", "c", dialect="threadweaver"), "threadweaver")[1] == []
    assert read(block("b", "c", dialect="threadweaver", sep="\n"), "threadweaver")[1] == ["\n"]


def test_a_missing_separator_a_sequential_block_and_an_unfinished_one_have_no_stray_text() -> None:
    assert get_dialect("multiverse").separator == "\n"
    for text in (block("b", "c", sep=""), block("b", sep="abc"), block("b", "c").partition("<Conclusion>")[0] + "ab"):
        assert read(text)[1] == []
