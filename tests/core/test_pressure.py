"""Who comes first: the more important request, among equals the older one. Who gives way first: the other way round."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from multiverse.serving.pressure import senior_first, seniority, victims


@dataclass(frozen=True)
class Tree:
    rank: int
    arrived: float


def test_importance_comes_before_age() -> None:
    urgent, old, young = Tree(-1, 9.0), Tree(0, 1.0), Tree(0, 2.0)
    assert senior_first([young, old, urgent]) == [urgent, old, young]
    assert victims([young, old, urgent]) == [young, old]


def test_the_most_senior_never_gives_way() -> None:
    assert victims([Tree(5, 5.0)]) == []
    assert victims([]) == []


@given(st.lists(st.builds(Tree, st.integers(-2, 2), st.integers(0, 5).map(float)), unique=True))
def test_there_is_one_order(trees: list[Tree]) -> None:
    """So no two trees can each be the other's victim."""
    order = senior_first(trees)
    assert [seniority(tree) for tree in order] == sorted(map(seniority, trees))
    assert order[:1] + victims(trees)[::-1] == order
