"""Groups and plans have to fit the tree, and refills and edits the chain."""

from __future__ import annotations

from typing import Any

import pytest

from multiverse.curator.artefacts import Grouping, Plan, Refill, SummaryTree
from multiverse.curator.checks.content import check_coverage, check_edit_ratio, check_edits, edit_ratio
from multiverse.curator.checks.structure import check_grouping, check_plan
from multiverse.curator.plan import depth, labels, sites

TREE = SummaryTree.model_validate(
    {"steps": [{"title": "a"}, {"title": "b", "substeps": ["b1", "b2", "b3"]}, {"title": "c"}, {"title": "d"}]}
)


def groups(*steps: list[str]) -> Grouping:
    return Grouping.model_validate({"groups": [{"steps": each, "reason": "r"} for each in steps]})


def plan(*items: Any) -> Plan:
    return Plan.model_validate({"plan": list(items)})


def fork(*paths: list[Any]) -> dict[str, Any]:
    return {"parallel": list(paths)}


@pytest.mark.parametrize("good", [[], [["2", "3"]], [["2.1", "2.2"], ["3", "4"]], [["1", "2", "3", "4"]]])
def test_groups_of_neighbours_are_fine(good: list[list[str]]) -> None:
    assert check_grouping(TREE, groups(*good)) == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ([["4", "5"]], "there is no step 5"),
        ([["1", "3"]], "in a row"),
        ([["3", "2"]], "in a row"),
        ([["2.3", "3"]], "same step"),
        ([["1", "2"], ["2", "3"]], "another group"),
    ],
)
def test_groups_that_do_not_fit_the_tree_are_refused(bad: list[list[str]], reason: str) -> None:
    assert any(reason in found for found in check_grouping(TREE, groups(*bad)))


def test_a_plan_of_independent_steps_is_fine_nested_once() -> None:
    nested = plan("1", fork(["2.1", fork(["2.2"], ["2.3"])], ["3"]), "4")
    assert check_plan(TREE, groups(["2", "3"], ["2.2", "2.3"]), nested, 2) == []
    assert depth(nested.plan) == 2
    assert check_plan(TREE, groups(["1", "2", "3"]), plan(fork(["1", "2"], ["3"]), "4"), 1) == []


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        (["1", fork(["2"], ["3"])], "leaves out 4"),
        (["1", "2.1", "2.3", "3", "4"], "leaves out 2.2"),
        (["1", "2", "2.1", "3", "4"], "2.1 more than once"),
        (["1", fork(["3"], ["2"]), "4"], "order"),
        (["1", "2", fork(["3"], ["4"])], "3 and 4 are in different paths but in no common group"),
        (["1", fork(["2.1"], ["2.2"]), "2.3", "3", "4"], "2.1 and 2.2 are in different paths"),
        (["1", fork(["2"], [fork(["3"], [])]), "4"], "empty"),
        (["1", "2", "3", "9"], "names 9"),
    ],
)
def test_plans_that_lose_reorder_or_part_dependent_steps_are_refused(items: list[Any], reason: str) -> None:
    assert any(reason in found for found in check_plan(TREE, groups(["2", "3"]), plan(*items), 2))


def test_a_plan_deeper_than_allowed_is_refused() -> None:
    nested = plan("1", fork([fork(["2.1"], ["2.2", "2.3"])], ["3"]), "4")
    assert check_plan(TREE, groups(["2", "3"], ["2.1", "2.2", "2.3"]), nested, 1) == [
        "blocks are nested 2 deep, allowed is 1"
    ]


def test_a_path_sees_what_stands_before_its_block_and_around_it_but_no_sibling() -> None:
    nested = plan("1", fork(["2.1", fork(["2.2"], ["2.3"])], ["3"]), "4")
    refill = Refill.model_validate({"sentences": {"1": 1, "2.1": 2, "2.2": 3, "2.3": 4, "3": 5, "4": 6}})
    outer, inner = sites(nested, refill)
    assert (outer.before, outer.paths, outer.label(1)) == ((1,), ((2, 3, 4), (5,)), "2")
    assert (inner.before, inner.paths, inner.label(1)) == ((1, 2), ((3,), (4,)), "1.2")
    assert labels(nested.plan) == ["1", "2.1", "2.2", "2.3", "3", "4"]


@pytest.mark.parametrize(
    ("sentences", "reason"),
    [
        ({"1": "1-2", "2": "4"}, "sentence 3 is missing"),
        ({"1": "1-3", "2": "3-4"}, "sentence 3 is given to more than one place"),
        ({"1": "1-4"}, "no sentence was given to label 2"),
        ({"1": "1-2", "2": "3-4", "7": "4"}, "there is no label 7"),
        ({"1": "1-2", "2": "3-5"}, "there is no sentence 5"),
    ],
)
def test_every_sentence_belongs_to_exactly_one_label(sentences: dict[str, str], reason: str) -> None:
    refill = Refill.model_validate({"sentences": sentences})
    assert any(reason in found for found in check_coverage(refill, ["1", "2"], 4))
    assert check_coverage(Refill.model_validate({"sentences": {"1": "1-2", "2": "3-4"}}), ["1", "2"], 4) == []


def test_the_edit_ratio_is_zero_for_equal_texts_whatever_their_white_space_and_grows_with_disorder() -> None:
    text = "We multiply crates by pieces. Loose ones are added. Then nothing is lost, which proves our first claim."
    assert edit_ratio(text, text.replace(" ", "\n")) == 0
    halves = text[len(text) // 2 :] + text[: len(text) // 2]
    assert check_edit_ratio(text, text, 0.2) == []
    assert "not in the order" in check_edit_ratio(text, halves, 0.2)[0]


@pytest.mark.parametrize(
    ("edits", "reason"),
    [
        ({5: "x"}, "sentence 5 is edited but in no path"),
        ({1: "  "}, "sentence 1 was emptied"),
        (
            {1: "quite another text, which has nothing to do with what the first one said at all"},
            "path 1 was rewritten too much",
        ),
    ],
)
def test_edits_outside_the_block_empty_or_excessive_are_refused(edits: dict[int, str], reason: str) -> None:
    sentences = ["Similarly the first one. ", "And the second one. ", "Three. ", "Four.", "Five."]
    assert any(reason in found for found in check_edits(edits, sentences, [[1, 2], [3, 4]], 0.5))
    assert check_edits({1: "That first thing."}, sentences, [[1, 2], [3, 4]], 0.5) == []
