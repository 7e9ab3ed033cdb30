"""A stage by itself: its prompt holds what the task needs, as it is, and its checks find what is wrong."""

from __future__ import annotations

from multiverse import registry
from multiverse.curator import Chain, GroupSteps, Reduce, RefillSteps, Restructure, Summary
from multiverse.curator.artefacts import Grouping, MapReduce, Plan, Refill, SummaryTree
from multiverse.curator.config import Checks
from multiverse.curator.plan import sites

CHAIN = Chain(0, "c", "Is $a < b$ & c?", "We look. $x < 1$ & so on. Similarly, $y > 2$. Hence \\boxed{3}.")
TREE = SummaryTree.model_validate({"steps": [{"title": t} for t in ("look", "do x", "do y", "end")]})
GROUPS = Grouping.model_validate({"groups": [{"steps": ["2", "3"], "reason": "apart"}]})
PLAN = Plan.model_validate({"plan": ["1", {"parallel": [["2"], ["3"]]}, "4"]})
REFILL = Refill.model_validate({"sentences": {"1": 1, "2": 2, "3": 3, "4": 4}})
DIALECT = registry.get("multiverse")


def reduce() -> Reduce:
    (site,) = sites(PLAN, REFILL)
    return Reduce(CHAIN, CHAIN.sentences, site, "collective", TREE.titles(), DIALECT, Checks())


def written(**changes: object) -> MapReduce:
    return MapReduce.model_validate(
        {"goal": "g", "outlines": ["do x", "do y"], "edits": {3: "$y > 2$."}, "conclusion": "both"} | changes
    )


def test_prompts_hold_question_and_numbered_sentences_with_their_formulas_as_they_are() -> None:
    stages = (
        Summary(CHAIN),
        GroupSteps(CHAIN, TREE),
        RefillSteps(CHAIN, TREE, PLAN, DIALECT, 0.2),
    )
    for stage in stages:
        system, user = stage.messages("")
        assert (system["role"], user["role"]) == ("system", "user")
        assert "Is $a < b$ & c?" in user["content"]
        assert "[2] $x < 1$ & so on.\n[3] Similarly, $y > 2$.\n" in user["content"]
        assert "earlier attempt" not in user["content"]
    beginnings = {stage.messages("")[1]["content"].split("# Task")[0].split("# Steps")[0].strip() for stage in stages}
    assert len(beginnings) == 1  # an endpoint with a prefix cache reads the chain once


def test_the_reason_of_an_earlier_round_is_in_every_prompt() -> None:
    stages = (Summary(CHAIN), GroupSteps(CHAIN, TREE), Restructure(CHAIN, TREE, GROUPS, 2), reduce())
    assert all("path 2 leaned on path 1" in stage.messages("path 2 leaned on path 1")[1]["content"] for stage in stages)


def test_the_prompt_of_a_block_shows_what_is_before_it_and_its_paths_only() -> None:
    user = reduce().messages("")[1]["content"]
    assert "We look." in user
    assert "[3] Similarly, $y > 2$." in user
    assert "boxed" not in user


def test_a_block_whose_texts_hold_tags_lean_on_siblings_or_miss_an_outline_is_refused() -> None:
    assert reduce().check(written()) == []
    assert "write no tags" in reduce().check(written(conclusion="see <Path>"))[0]
    assert "write no tags" in reduce().check(written(edits={3: "$y > 2$. </Path>"}))[0]
    assert "points out of itself" in reduce().check(written(edits={}))[0]
    assert reduce().check(written(outlines=["one", "two", "three"])) == ["there are 3 outlines for 2 paths"]
    assert "emptied" in reduce().check(written(edits={3: ""}))[0]


def test_a_refill_that_scatters_the_sentences_is_refused() -> None:
    long = Chain(0, "c", "q", " ".join(f"{word.capitalize()} is what we say now." for word in "abcdefgh"))
    tree = SummaryTree.model_validate({"steps": [{"title": "s"}, {"title": "t"}]})
    stage = RefillSteps(long, tree, Plan.model_validate({"plan": ["1", "2"]}), DIALECT, 0.02)
    assert stage.check(Refill.model_validate({"sentences": {"1": "1-4", "2": "5-8"}})) == []
    assert "not in the order" in stage.check(Refill.model_validate({"sentences": {"1": "5-8", "2": "1-4"}}))[0]
