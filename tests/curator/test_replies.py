"""Whatever a model puts around and into its JSON, what it meant is read; what can't be read gets a reason."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.curator.artefacts import Grouping, MapReduce, Plan, Refill, SummaryTree
from multiverse.curator.replies import ReplyError, decode

TREE = '{"steps": [{"title": "a", "substeps": ["b", "c"]}, {"title": "d"}]}'
FORMULAS = r"$\frac{a}{b} < \beta & \neq \times \to \rho > \text{x} \\ \sqrt{2} \theta \nu \right) \begin{x}$"


@pytest.mark.parametrize(
    "reply",
    [
        TREE,
        f"Here you are:\n```json\n{TREE}\n```\nAnything else?",
        f"```\n{TREE}\n```",
        f"Let {{x}} be the set {{1, 2}}. {TREE} That is all.",
        f'<think>first {{"steps": []}} no</think>{TREE}',
        f"```json\n{TREE}",
    ],
)
def test_prose_fences_and_thoughts_around_the_object_do_not_matter(reply: str) -> None:
    assert decode(reply, SummaryTree).titles() == {"1": "a", "1.1": "b", "1.2": "c", "2": "d"}


@pytest.mark.parametrize("escaped", [True, False])
def test_latex_is_unharmed_whether_its_backslashes_were_doubled_or_not(escaped: bool) -> None:
    formulas = FORMULAS if escaped else FORMULAS.replace(r"\\ ", "")  # a single \\ can't be told from an escaped \
    text = json.dumps({"goal": formulas, "outlines": ["a", "b"], "conclusion": "c"})
    read = decode(text if escaped else text.replace("\\\\", "\\"), MapReduce)
    assert read.goal == formulas


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_properly_escaped_text_comes_through_as_it_is(text: str) -> None:
    """Control characters apart: an escaped line break before a `u` can't be told from the letter nu."""
    reply = json.dumps({"steps": [{"title": f"x{text}x"}]}, ensure_ascii=False)
    assert decode(reply, SummaryTree).steps[0].title == f"x{text}x"


def test_line_breaks_and_tabs_in_strings_stay_what_they_are() -> None:
    assert (
        decode('{"steps": [{"title": "one\\nThe two\\tand\\u00e9"}]}', SummaryTree).steps[0].title
        == "one\nThe two\tandé"
    )


@pytest.mark.parametrize(
    ("reply", "finish", "reason"),
    [
        (TREE[:30], "length", "cut off"),
        (TREE[:30], "stop", "no complete JSON"),
        (TREE[:-2] + "}", "stop", "no complete JSON"),
        ("I can't do that.", "stop", "no complete JSON"),
        ("", "stop", "no complete JSON"),
        ('{"steps": []}', "stop", "steps"),
        ('{"step": [1]}', "stop", "steps"),
        ('{"steps": [{"substeps": []}]}', "stop", "steps.0.title"),
        ("[1, 2]", "stop", "no complete JSON"),
    ],
)
def test_what_cannot_be_used_is_named(reply: str, finish: str, reason: str) -> None:
    with pytest.raises(ReplyError, match=reason):
        decode(reply, SummaryTree, finish)


def test_a_part_of_an_object_that_was_cut_off_is_not_taken_for_the_answer() -> None:
    with pytest.raises(ReplyError):
        decode('{"steps": [{"title": "a", "steps": [{"title": "b"}]}, {"title', SummaryTree)


def test_labels_may_be_numbers_and_a_path_a_single_label() -> None:
    assert decode('{"groups": [{"steps": [2, 3], "reason": "r"}]}', Grouping).groups[0].steps == ["2", "3"]
    plan = decode('{"plan": [1, {"parallel": [2.1, ["2.2", 3]]}]}', Plan)
    assert plan.model_dump() == {"plan": ["1", {"parallel": [["2.1"], ["2.2", "3"]]}]}


def test_sentences_may_be_given_as_ranges_lists_or_single_numbers() -> None:
    reply = '{"sentences": {"1": "1-3", "2": [4, "5 - 6", 8], "3": 7, "4": "9 to 10, 12"}}'
    assert decode(reply, Refill).sentences == {"1": [1, 2, 3], "2": [4, 5, 6, 8], "3": [7], "4": [9, 10, 12]}


def test_an_absurd_range_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(ReplyError, match="no range"):
        decode('{"sentences": {"1": "1-9999999"}}', Refill)
