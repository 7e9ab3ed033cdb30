"""When a preempted tree, one that gave up its KV, may begin again. Same on every host.

If it came back at once, it would take the KV of others, which then take its own: all would be replayed again and again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar


class Preempted(Protocol):
    """A tree without KV.

    Attributes:
        released_kv: what it held when it was preempted, in the host's units: blocks of vLLM, slots of SGLang.
    """

    released_kv: int


Tree = TypeVar("Tree", bound=Preempted)


def readmittable(preempted: Iterable[Tree], oldest: Tree, free: int, promised: int) -> Iterator[Tree]:
    """The trees that may begin now: the oldest of all at once, others while as much is free as they released.

    Takes nothing by itself: the caller begins each tree that it is given.

    Args:
        preempted: by age, the oldest first.
        oldest: of all trees, preempted or not; it always goes on, so there is always progress.
        free: units of KV (as `released_kv`) that are free.
        promised: units of it that others are about to take.
    """
    for tree in preempted:
        if tree is oldest or free >= promised + tree.released_kv:
            promised += tree.released_kv
            yield tree
