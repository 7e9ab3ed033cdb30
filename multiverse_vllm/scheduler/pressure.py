"""What happens when KV blocks get short: whole trees give theirs back and are replayed later, youngest first."""

from __future__ import annotations

import logging
from typing import Any

from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.request_queue import SchedulingPolicy
from vllm.v1.request import Request, RequestStatus

from multiverse.decoding.replay import parts
from multiverse.decoding.strand import Status, Strand
from multiverse.serving.pressure import senior_first, seniority, victims
from multiverse.serving.readmission import readmittable
from multiverse_vllm.scheduler.blocks import Move
from multiverse_vllm.scheduler.tree import Member, RequestTree

logger = logging.getLogger("vllm.multiverse")


class MemoryPressure:
    """The part of the scheduler mixin that decides who has to give blocks back."""

    _exiles: dict[int, RequestTree]
    _preempted: dict[int, RequestTree]
    _moves: list[Move]

    def _victim_order(self, request: Request) -> tuple[Any, ...]:
        """vLLM preempts from the end: plain requests before trees, junior trees before senior ones.

        With priorities it goes by those and by age, as we do, but prefers nobody.
        """
        member = self._members.get(request.request_id)
        if member is None or not member.tree.structured:
            return True, request.arrival_time
        return False, *seniority(member.tree)

    def _plenty(self) -> bool:
        """Whether memory is so ample that nobody can come short in this step, whoever the oldest tree is."""
        return self._table.free() > self.max_model_len // self._table.size + 3 * len(self.requests)

    def _make_room(self) -> None:
        """If this step could not get its blocks, take them from the most junior trees that hold any.

        vLLM can only preempt what runs; the blocks may be held by parents and branches that wait.
        """
        trees = self._structured.values()
        senior = min(trees, key=seniority, default=None)
        if senior is None:
            return
        for tree in victims(trees):
            if self._table.free() >= self._guard.run(senior.root.request, self._blocks_needed, senior, otherwise=0):
                return
            if self._holds(tree):
                self._guard.run(tree.root.request, self._replay, tree, otherwise=None)
        self._guard.run(senior.root.request, self._make_do, senior, otherwise=None)

    def _make_do(self, tree: RequestTree) -> None:
        """Nobody else can give way to `tree`: its last branches wait for its first ones, without KV.

        If vLLM preempted one of them instead, the whole tree would be computed again, and come to this point again.
        """
        strands = {member.request: member for member in tree.members.values() if not member.parked}
        if all(request in strands for request in self.running):
            waiting = sorted(strands.values(), key=lambda member: member.strand.key)
            while len(waiting) > 1 and self._table.free() < self._growth(tree):
                self._set_back(waiting.pop())
        if not self.running and self._table.free() < self._blocks_needed(tree):  # alone, and it does not fit
            root = tree.root.request
            logger.error("request %s needs more KV blocks than the %d there are", root.request_id, self._table.total())
            self._fail(root)

    def _set_back(self, branch: Member) -> None:
        """Free an open branch without branches of its own. It is started again from its parent's KV some time."""
        tree, request = branch.tree, branch.request
        tree.recomputed += self._own_kv(branch)[0]
        tree.restarts += 1
        super().finish_requests([request.request_id], RequestStatus.FINISHED_ABORTED)
        self._members.pop(request.request_id)
        tree.members.pop(branch.strand.key)
        self._mark(tree)

    def _readmit(self) -> None:
        """Let trees that gave up their blocks begin again: the oldest at once, others when as many are free again."""
        senior = min(self._structured.values(), key=seniority)
        needed = self._guard.run(senior.root.request, self._blocks_needed, senior, otherwise=0)
        promised = needed + len(self._members)
        exiles = senior_first(self._exiles.values())
        for tree in list(readmittable(exiles, senior, self._table.free(), promised)):
            self._guard.run(tree.root.request, self._begin, tree.root, otherwise=None)

    def _holds(self, tree: RequestTree) -> bool:
        return any(map(self._held, tree.members.values()))

    def _held(self, member: Member) -> int:
        return self._table.held(member.request.request_id)

    def _growth(self, tree: RequestTree) -> int:
        """Blocks that running requests grow into in this step, and those that the strands of `tree` in a queue miss."""
        size = self._table.size
        needed = sum(request.num_computed_tokens % size == 0 for request in self.running)
        for member in tree.members.values():
            if not member.parked and member.request not in self.running:
                needed += max(0, -(-member.request.num_tokens // size) - self._held(member))
        return needed

    def _blocks_needed(self, tree: RequestTree) -> int:
        """`_growth`, and a block per strand that starts branches; what one of these needs, if nothing else goes on."""
        ready = [(member, self._ready(member)) for member in tree.members.values()]
        starts = [min(self._start_needs(member, child) for child in children) for member, children in ready if children]
        return self._growth(tree) + (len(starts) if _open(tree) else min(starts, default=0))

    def _room_for(self, parent: Member, child: Strand) -> bool:
        """Whether a branch can start and every open strand of the tree still grow: else one would be set back soon."""
        needs, others = self._start_needs(parent, child), _open(parent.tree)
        return self._plenty() or self._table.free() >= needs + (others and others + self._growth(parent.tree))

    def _ready(self, parent: Member) -> list[Strand]:
        """The branches of a parked strand that have no request and could have one."""
        children = parent.parts()[parent.part].children if parent.parked else ()
        known = parent.tree.members
        return [child for child in children if child.status is not Status.WAITING and child.key not in known]

    def _start_needs(self, parent: Member, child: Strand) -> int:
        """Blocks to start a branch with: for what it has said already, and the copy of a partly filled one."""
        size, length = self._table.size, parent.request.num_tokens
        return -(-(length + len(parts(parent.tree.controller, child)[0].tokens)) // size) - length // size

    def _order_queue(self) -> None:
        """The queue of those that hold blocks is first come, first served: an old tree must not wait behind others."""
        queue = self.kv_holding_waiting
        if len(queue) > 1:
            rank = self.policy is SchedulingPolicy.PRIORITY
            requests = sorted(queue, key=lambda request: (request.priority if rank else 0, request.arrival_time))
            queue.remove_requests(requests)
            for request in requests:
                queue.add_request(request)

    def _preempt_request(self, request: Request, timestamp: float, drop_stale_output: bool = False) -> None:
        member = self._members.get(request.request_id)
        structured = member is not None and member.tree.structured
        if member is not None and structured:
            member.lost = self._guard.run(member.tree.root.request, self._own_kv, member, otherwise=None)
            self._preempted[id(member.tree)] = member.tree
        super()._preempt_request(request, timestamp, drop_stale_output or structured)

    def _own_kv(self, member: Member) -> tuple[int, int]:
        """Tokens and blocks that a strand holds beyond those of its parent, which it shares."""
        parent = member.strand.parent
        shared = 0 if parent is None else member.tree.members[parent.key].request.num_tokens
        blocks = self._held(member) - shared // self._table.size
        return max(0, member.request.num_computed_tokens - shared), max(0, blocks)

    def _replay_preempted(self) -> None:
        """vLLM has preempted strands of these: it would compute them causally, from their first token on."""
        preempted, self._preempted = self._preempted, {}
        for tree in preempted.values():
            if self._lives(tree):
                self._guard.run(tree.root.request, self._replay, tree, otherwise=None)

    def _replay(self, tree: RequestTree) -> None:
        """Give up all KV of a tree and compute it again, exactly, when there is room."""
        if id(tree) in self._exiles:
            return
        root = tree.root
        released_kv = [member.lost or self._own_kv(member) for member in tree.members.values()]
        tree.replays += 1
        tree.restarts += 1
        self.tally.count("replays")
        tree.recomputed += sum(tokens for tokens, _ in released_kv)
        tree.released_kv = sum(blocks for _, blocks in released_kv)
        others = [member.request.request_id for member in tree.members.values() if member is not root]
        super().finish_requests([i for i in others if i in self.requests], RequestStatus.FINISHED_ABORTED)
        for request_id in others:
            self._members.pop(request_id)
        tree.members = {(): root}
        self._leave_queues(root.request)
        self._recall(root.request)
        self.kv_cache_manager.free(root.request)
        self.encoder_cache_manager.free(root.request)
        root.request.num_computed_tokens, root.request.status = 0, RequestStatus.WAITING
        root.parked, root.draining, root.lost = False, False, None
        self._exiles[id(tree)] = tree

    def reset_prefix_cache(self, reset_running_requests: bool = False, reset_connector: bool = False) -> bool:
        """With `reset_running_requests` no KV may survive (SEMANTICS section 8): all trees give theirs up.

        vLLM preempts what runs, but knows nothing of KV that parents and closed branches hold while they wait.
        """
        if reset_running_requests:
            self._preempted.clear()
            for tree in list(self._structured.values()):
                if self._holds(tree):
                    self._guard.run(tree.root.request, self._replay, tree, otherwise=None)
            self._end_failed()
            self._moves = []
            self._table.drop_copies()
        return bool(super().reset_prefix_cache(reset_running_requests, reset_connector))

    def get_num_unfinished_requests(self) -> int:
        """vLLM counts its queues; a tree may be in none of them between two steps.

        While it waits for what has begun to end, before a pause, those that have given up their KV have not begun.
        """
        count = super().get_num_unfinished_requests()
        if self._pause_state == PauseState.UNPAUSED:
            return max(count, len(self._members))
        if self._pause_state == PauseState.PAUSED_NEW:
            return max(count, sum(map(self._holds, self._structured.values())))
        return int(count)


def _open(tree: RequestTree) -> int:
    """The strands of `tree` that are being computed or wait for their turn."""
    return sum(not member.parked for member in tree.members.values())
