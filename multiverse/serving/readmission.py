"""When a tree that gave up its KV may begin again. Same on every host.

If it came back at once, it would take the KV of others, which then take its own: all would be replayed again and again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar


class Exile(Protocol):
    """A tree without KV.

    Attributes:
        given_up: what it held when it gave up, in the host's units of KV.
    """

    given_up: int


Tree = TypeVar("Tree", bound=Exile)


def returning(exiles: Iterable[Tree], oldest: Tree, free: int, promised: int) -> Iterator[Tree]:
    """The trees that may begin now: the oldest of all at once, others while as much is free as they gave up.

    Args:
        exiles: by age, the oldest first.
        oldest: of all trees, exiled or not; it always goes on, so there is always progress.
        free: units of KV that are free.
        promised: units of it that others are about to take.
    """
    for tree in exiles:
        if tree is oldest or free >= promised + tree.given_up:
            promised += tree.given_up
            yield tree
