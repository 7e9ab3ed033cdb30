"""What happens when KV blocks get short: whole trees release theirs and are replayed later, the most junior first."""

from __future__ import annotations

import logging
from typing import Any

from vllm.v1.request import RequestStatus

from multiverse.serving.pressure import senior_first, seniority, victims
from multiverse.serving.readmission import readmittable
from multiverse_vllm.scheduler.demand import Demand
from multiverse_vllm.scheduler.forks import Forks
from multiverse_vllm.scheduler.host import Request
from multiverse_vllm.scheduler.state import State
from multiverse_vllm.scheduler.tree import Member, RequestTree

logger = logging.getLogger("vllm.multiverse")


class MemoryPressure:
    """Decides who has to give blocks back, and who gets some again.

    Attributes:
        partly_preempted: by their `id`, trees of which vLLM has preempted a request.
    """

    def __init__(self, state: State, demand: Demand, forks: Forks) -> None:
        self._host, self._trees, self._queue, self._table = state.host, state.trees, state.queue, state.table
        self._tally, self._demand, self._forks = state.tally, demand, forks
        self.partly_preempted: dict[int, RequestTree] = {}

    # --- who comes short ---------------------------------------------------------------------------------------

    def make_room(self) -> None:
        """If this step could not get its blocks, take them from the most junior trees that hold any.

        vLLM can only preempt what runs; the blocks may be held by parents and branches that wait.
        """
        trees = self._trees.structured.values()
        senior = min(trees, key=seniority, default=None)
        if senior is None:
            return
        for tree in victims(trees):
            if self._table.free() >= self._needed_by(senior):
                return
            if self._demand.holds(tree):
                self._trees.attempt(self.preempt, tree)
        self._trees.attempt(self._make_do, senior)

    def _needed_by(self, senior: RequestTree) -> int:
        return self._trees.guard.run(senior.root.request, self._demand.of, senior, otherwise=0)

    def _make_do(self, tree: RequestTree) -> None:
        """Nobody else can give way to `tree`: its last branches wait for its first ones, without KV.

        If vLLM preempted one of them instead, the whole tree would be computed again, and come to this point again.
        """
        strands = {member.request: member for member in tree.members.values() if not member.parked}
        if all(request in strands for request in self._queue.running()):
            parents = {member.strand.parent.key for member in tree.members.values() if member.strand.parent}
            leaves = [member for member in strands.values() if member.strand.key not in parents]
            waiting = sorted(leaves, key=lambda member: member.strand.key)
            while len(waiting) > 1 and self._table.free() < self._demand.next_step(tree):
                self._set_back(waiting.pop())
        if not self._queue.running() and self._table.free() < self._demand.of(tree):  # alone, and it does not fit
            root = tree.root.request
            logger.error("request %s needs more KV blocks than the %d there are", root.request_id, self._table.total())
            self._trees.fail(root)

    def _set_back(self, branch: Member) -> None:
        """Free an open branch without branches of its own. It is started again from its parent's KV some time."""
        tree = branch.tree
        tree.recomputed += self._demand.own_kv(branch)[0]
        tree.restarts += 1
        self._queue.finish([branch.request.request_id], RequestStatus.FINISHED_ABORTED)
        self._trees.remove(branch)
        self._trees.note_change(tree)

    def sort_queues(self) -> None:
        """Let vLLM preempt from plain requests first, then from junior trees, and serve waiting ones by age.

        With priorities it goes by those and by age, as we do, but prefers nobody.
        """
        self._queue.sort_running(self._victim_order)
        self._queue.sort_waiting()

    def _victim_order(self, request: Request) -> tuple[Any, ...]:
        member = self._trees.members.get(request.request_id)
        if member is None or not member.tree.structured:
            return True, request.arrival_time
        return False, *seniority(member.tree)

    # --- trees without KV --------------------------------------------------------------------------------------

    def note_preemption(self, request: Request) -> bool:
        """vLLM is about to preempt `request`. Returns whether that is of a tree, and what is under way to be dropped.

        It would compute a strand causally, from its first token on; `finish_preemptions` prevents that.
        """
        member = self._trees.members.get(request.request_id)
        if member is None or not member.tree.structured:
            return False
        member.lost = self._trees.guard.run(member.tree.root.request, self._demand.own_kv, member, otherwise=None)
        self.partly_preempted[id(member.tree)] = member.tree
        return True

    def finish_preemptions(self) -> None:
        """Preempt the rest of the trees of which vLLM has preempted a request."""
        trees, self.partly_preempted = self.partly_preempted, {}
        for tree in trees.values():
            if self._trees.is_alive(tree):
                self._trees.attempt(self.preempt, tree)

    def preempt(self, tree: RequestTree) -> None:
        """Release all KV of a tree; it is computed again, exactly, when there is room."""
        if id(tree) in self._trees.preempted:
            return
        root, request = tree.root, tree.root.request
        released = [member.lost or self._demand.own_kv(member) for member in tree.members.values()]
        tree.replays += 1
        tree.restarts += 1
        self._tally.count("replays")
        tree.recomputed += sum(tokens for tokens, _ in released)
        tree.released_kv = sum(blocks for _, blocks in released)
        branches = [member for member in tree.members.values() if member is not root]
        self._queue.finish([branch.request.request_id for branch in branches], RequestStatus.FINISHED_ABORTED)
        for branch in branches:
            self._trees.remove(branch)
        self._queue.remove(root)
        self._host.kv_cache_manager.free(request)
        self._host.encoder_cache_manager.free(request)
        request.num_computed_tokens = 0
        root.draining, root.lost = False, None
        tree.disturb()
        self._trees.preempted[id(tree)] = tree

    def preempt_all(self) -> None:
        """No KV may survive (SEMANTICS section 8).

        vLLM preempts what runs, but knows nothing of KV that parents and closed branches hold while they wait.
        """
        self.partly_preempted.clear()
        for tree in list(self._trees.structured.values()):
            if self._demand.holds(tree):
                self._trees.attempt(self.preempt, tree)

    def readmit(self) -> None:
        """Let preempted trees begin again: the most senior at once, others when as much is free as they released."""
        senior = min(self._trees.structured.values(), key=seniority)
        promised = self._needed_by(senior) + len(self._trees.members) + len(self._trees.deferred)
        preempted = senior_first(self._trees.preempted.values())
        for tree in list(readmittable(preempted, senior, self._table.free(), promised)):
            self._trees.attempt(self._forks.start_root, tree.root)
