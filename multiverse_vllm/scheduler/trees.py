"""Which requests are of which trees, and how those are: the register that all parts of the scheduler share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from multiverse.serving.containment import Guard
from multiverse.serving.options import Options
from multiverse_vllm.scheduler.host import HostScheduler, Request
from multiverse_vllm.scheduler.tree import Member, RequestTree


@dataclass(slots=True)
class Deferred:
    """A request that may fork and has sampled no tag so far: vLLM serves it by itself.

    Attributes:
        options: the client's, on top of the server's.
        created: when it came, in monotonic seconds.
        asked: whether the client gave options, and so gets a record in any case.
        accepted_drafts: how many of its tokens were drafted.
    """

    request: Request
    options: Options
    created: float
    asked: bool
    accepted_drafts: int = 0


class Trees:
    """The trees of one scheduler.

    Attributes:
        members: by request id, also those of requests that have not forked.
        deferred: by request id, requests that are no trees yet (`scheduler.deferral`).
        all: every tree, by its `id`, as the following.
        structured: trees whose KV is more than one causal sequence.
        changed: those that may have branches to start or to join.
        preempted: those that gave up their KV, and wait until there is room to begin again.
        failed: by request id, roots that are to be ended with an error as soon as vLLM's own loop is left.
        guard: contains what is raised about one tree.
    """

    def __init__(self, host: HostScheduler, log: logging.Logger) -> None:
        self._host = host
        self.members: dict[str, Member] = {}
        self.deferred: dict[str, Deferred] = {}
        self.all: dict[int, RequestTree] = {}
        self.structured: dict[int, RequestTree] = {}
        self.changed: dict[int, RequestTree] = {}
        self.preempted: dict[int, RequestTree] = {}
        self.failed: dict[str, Request] = {}
        self.guard: Guard[Request] = Guard(self.fail, lambda root: str(root.request_id), log)

    def add(self, member: Member) -> None:
        """Enter a strand's request, before it holds anything, so that whatever ends the tree takes it along."""
        name = member.request.request_id
        assert name not in self.members
        assert member.strand.key not in member.tree.members
        self.members[name] = member.tree.members[member.strand.key] = member
        self._host.requests[name] = member.request
        self.all[id(member.tree)] = member.tree

    def remove(self, member: Member) -> None:
        """Strike out a strand's request, which holds nothing any more."""
        name = member.request.request_id
        del self.members[name], member.tree.members[member.strand.key]
        member.tree.note_released(member.strand.key)
        self._host.requests.pop(name, None)  # unless vLLM has done so

    def forget(self, tree: RequestTree) -> None:
        """Strike out a whole tree; what vLLM has of it is ended by whoever calls this."""
        for request_id in tree.ids():
            self.members.pop(request_id, None)
        for trees in (self.all, self.structured, self.changed, self.preempted):
            trees.pop(id(tree), None)

    def note_change(self, tree: RequestTree) -> None:
        """There may be branches of `tree` to start or to join before the next step."""
        self.changed[id(tree)] = tree
        tree.disturb()

    def take_changed(self) -> list[RequestTree]:
        """Those whose change was noted since the last time."""
        trees, self.changed = self.changed, {}
        return list(trees.values())

    def fail(self, root: Request) -> None:
        """Have the tree of `root` ended with an error. Until then, nothing more is done about it."""
        self.failed[root.request_id] = root

    def is_alive(self, tree: RequestTree) -> bool:
        """Whether anything is still to be computed for it."""
        name = tree.root.request.request_id
        return tree.controller.finish_reason is None and name in self.members and name not in self.failed

    def attempt(self, handler: Callable[..., object], one: Member | RequestTree, *args: object) -> object:
        """`handler(one, ...)`, which is about a tree or a member of it; if it raises, the tree fails: `None`."""
        try:
            return handler(one, *args)
        except Exception as error:
            tree = one.tree if isinstance(one, Member) else one
            self.guard.caught(tree.root.request, error)
            return None

    def gauges(self) -> dict[str, int]:
        """Branches that run, sequences that are parked and branches that are held, for the metrics."""
        running = parked = held = 0
        for tree in self.structured.values():
            tree.survey()
            running += tree.running
            parked += tree.parked
            held += tree.held_now
        return {"running_branches": running, "parked_sequences": parked, "held_branches": held}
