"""What a host computes is brought to what the controller wants: branches start, and closed ones are joined.

Nobody acts on the controller's orders one by one. Whenever something may have changed, the strands are looked at: a
parent whose branches have no member yet starts them, one whose branches are all closed goes on. So it does not matter
how many steps ago they were decided about, or whether the tree was computed again since. Same on every host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from multiverse.decoding.replay import Part
from multiverse.decoding.strand import Status, Strand
from multiverse.serving.request_tree import Member

M = TypeVar("M", bound=Member)


class Host(Protocol[M]):
    """What an adapter does about the strands of a tree, between steps."""

    def is_complete(self, parent: M) -> bool:
        """Whether the KV of a strand that forks is there, or its branches make up for it. If not, the host does."""

    def start(self, parent: M, branch: Strand) -> None:
        """Map: make a member of a branch, whose KV begins with its parent's; or wait until there is room for it."""

    def join(self, parent: M, branches: list[M], part: Part) -> None:
        """Reduce: hand the KV of closed branches, in order, to their parent, and let that go on with `part`.

        They are no members any more then; or nothing was changed, as their KV has yet to be completed.
        """


def reconcile(members: Mapping[tuple[int, ...], M], host: Host[M]) -> None:
    """Start and join what can be, of one tree.

    Args:
        members: by strand key, those that the host has; `host` adds and removes some.
    """
    for parent in list(members.values()):
        if not parent.forkable or members.get(parent.strand.key) is not parent:
            continue
        known = parent.parts()
        children = known[parent.part].children
        if not children or not host.is_complete(parent):
            continue
        for child in children:
            if child.key not in members and child.status is not Status.WAITING:
                host.start(parent, child)
        branches = [members[child.key] for child in children if child.key in members]
        closed = len(branches) == len(children) and all(branch.closed for branch in branches)
        if parent.idle and closed and parent.part + 1 < len(known):
            host.join(parent, branches, known[parent.part + 1])
