"""Paths that lean on each other are found; paths that merely resemble each other are not accused."""

from __future__ import annotations

import pytest

from multiverse.curator.checks.independence import check_references, check_results

LABELS = ["1", "2"]
KNOWN = "Order A has 12 crates of 15 pieces. Order B has 14 crates of 25 pieces."
FIRST = "The crates hold $12 \\times 15 = 180$ pieces."
OUTLINES = ["Work out order A", "Work out order B"]


@pytest.mark.parametrize(
    "text",
    [
        "Similarly, the crates hold 350.",
        "As before, we multiply.",
        "We multiply as in the previous case.",
        "We go on as in path 1.",
        "This differs from the other path.",
        "Unlike in the first attempt, it fits.",
        "Using the value computed above, we go on.",
        "By the same argument it holds.",
    ],
)
def test_phrases_that_point_out_of_a_path_are_found(text: str) -> None:
    assert check_references(["It is 180.", text], LABELS)


@pytest.mark.parametrize(
    "text",
    [
        "Order B has 14 crates.",
        "In path 2 there is more.",
        "The triangles are similar, so the sides are proportional.",
        "The function is bounded from above by 3.",
        "First we multiply, then we add the previous term.",
        "In the first case $x < 0$; in the second case $x > 0$.",
    ],
)
def test_phrases_within_a_path_are_not(text: str) -> None:
    assert check_references(["It is 180.", text], LABELS) == []


def test_a_number_that_only_the_sibling_found_is_a_dependency() -> None:
    found = check_results(KNOWN, OUTLINES, [FIRST, "Adding 180 to it gives 530."], LABELS)
    assert found == ["path 2 uses 180, which path 1 found"]


@pytest.mark.parametrize(
    "text",
    [
        "The crates hold $14 \\times 25 = 350$ pieces, more than 350 others.",
        "Here, too, it comes to $9 \\times 20 = 180$, and 180 is even.",
        "Order A has 12 crates, which does not matter.",
    ],
)
def test_a_number_that_is_given_or_worked_out_is_none(text: str) -> None:
    assert check_results(KNOWN, OUTLINES, [FIRST, text], LABELS) == []


def test_a_name_that_only_the_sibling_defined_is_a_dependency() -> None:
    first = "Let $x_1 = 5$ be the root."
    assert "x_1" in check_results("Solve it.", OUTLINES, [first, "Then $x_1$ is doubled."], LABELS)[0]
    assert check_results("Let x_1 be a root.", OUTLINES, [first, "Then $x_1$ is doubled."], LABELS) == []
    assert check_results("Solve it.", OUTLINES, [first, "Let $x_1 = 7$; then $x_1$ is odd."], LABELS) == []


def test_an_outline_that_gives_its_result_away_is_refused() -> None:
    given = ["Work out order A, which is 180", "Work out the 14 crates of order B"]
    assert check_results(KNOWN, given, [FIRST, "It is so."], LABELS) == [
        "outline 1 gives away 180, which its path has to find out"
    ]
