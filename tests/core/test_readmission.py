"""Trees that gave up their KV come back when there is room for what they gave up, the oldest at once."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from multiverse.serving.readmission import readmittable


@dataclass(eq=False)
class Tree:
    released_kv: int


def test_a_tree_waits_until_as_much_is_free_as_it_gave_up() -> None:
    running, small, large = Tree(0), Tree(10), Tree(30)
    assert list(readmittable([large, small], running, free=29, promised=0)) == [small]
    assert list(readmittable([large, small], running, free=30, promised=0)) == [large]
    assert list(readmittable([large, small], running, free=40, promised=0)) == [large, small]
    assert list(readmittable([large, small], running, free=40, promised=1)) == [large]


def test_the_oldest_of_all_never_waits() -> None:
    oldest, other = Tree(100), Tree(1)
    assert list(readmittable([oldest, other], oldest, free=0, promised=50)) == [oldest]


@given(st.lists(st.integers(0, 50)), st.integers(0, 100), st.integers(0, 100))
def test_those_that_come_back_fit_together(sizes: list[int], free: int, promised: int) -> None:
    preempted = [Tree(size) for size in sizes]
    back = list(readmittable(preempted, Tree(0), free, promised))
    assert not back or promised + sum(tree.released_kv for tree in back) <= free
