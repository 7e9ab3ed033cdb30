"""The trees of one scheduler, and where each stands: alive, without KV, retracted in this step, about to fail."""

from __future__ import annotations

from collections.abc import Iterator

from multiverse.serving.pressure import senior_first, seniority, victims
from multiverse_sglang.scheduler.tree import Member, RequestTree


class Trees:
    """Requests that are taken apart into strands, from then (`add`) until their client has its last answer (`remove`).

    Attributes:
        by_rid: all of them, by the id of the client's request.
        preempted: those that gave up all their KV and wait until there is room.
        retracted: those of which SGLang has retracted runs in the step that it is planning; they are preempted next.
        failing: those that end with an error as soon as SGLang's own loop has been left, requests that did not fork yet
            among them.
        results: members for which results came in this step.
    """

    def __init__(self) -> None:
        self.by_rid: dict[str, RequestTree] = {}
        self.preempted: list[RequestTree] = []
        self.retracted: list[RequestTree] = []
        self.failing: list[RequestTree] = []
        self.results: list[Member] = []

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.by_rid)

    def __iter__(self) -> Iterator[RequestTree]:
        """All of them as they are now, so that what is done about one may remove it."""
        return iter(list(self.by_rid.values()))

    def members(self) -> Iterator[Member]:
        """All strands of all trees."""
        return (member for tree in self for member in tree.members.values())

    def held(self) -> list[Member]:
        """Those that are held."""
        trees = (tree for tree in self.by_rid.values() if tree.held_now)
        return [member for tree in trees for member in tree.members.values() if member.held_since is not None]

    def add(self, tree: RequestTree) -> None:
        """`tree` is taken apart: from now on SGLang's request is only what the client sees."""
        assert not tree.is_forked
        tree.is_forked, self.by_rid[tree.client.rid] = True, tree

    def remove(self, tree: RequestTree) -> None:
        """Forget `tree`, which has given back all that it had."""
        self.by_rid.pop(tree.client.rid, None)
        for trees in (self.preempted, self.retracted):
            trees[:] = [other for other in trees if other is not tree]

    def is_alive(self, tree: RequestTree) -> bool:
        """Whether it was added and not removed yet."""
        return self.by_rid.get(tree.client.rid) is tree

    def oldest(self) -> RequestTree:
        """The most senior: it never gives anything back, so that it ends some day."""
        return min(self.by_rid.values(), key=seniority)

    def victim(self) -> RequestTree | None:
        """The most junior tree that has any KV; never the most senior of all."""
        return next(filter(_has_kv, victims(self)), None)

    def hold_kv(self) -> bool:
        """Whether any tree has KV."""
        return any(map(_has_kv, self))

    def waiting(self) -> list[RequestTree]:
        """The preempted, in the order in which they come back."""
        return senior_first(self.preempted)


def _has_kv(tree: RequestTree) -> bool:
    return any(member.computed or (member.run and member.run.kv.holds_kv) for member in tree.members.values())
