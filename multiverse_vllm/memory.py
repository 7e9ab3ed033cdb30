"""What happens when KV blocks get short: whole trees give theirs back and are replayed later, youngest first."""

from __future__ import annotations

from vllm.v1.core.sched.interface import PauseState
from vllm.v1.request import Request, RequestStatus

from multiverse.exile import returning
from multiverse.strand import Status
from multiverse_vllm.tree import Member, RequestTree


class MemoryPressure:
    """The part of the scheduler mixin that decides who has to give blocks back."""

    _exiles: list[RequestTree]

    def _trees(self) -> list[RequestTree]:
        """The structured trees, oldest first."""
        return sorted(self._structured.values(), key=lambda tree: tree.root.request.arrival_time)

    def _victim_order(self, request: Request) -> tuple[bool, float]:
        """vLLM preempts from the end: plain requests before trees, younger trees before older ones."""
        member = self._members.get(request.request_id)
        return (member is None or not member.tree.structured, request.arrival_time)

    def _plenty(self) -> bool:
        """Whether memory is so ample that nobody can come short in this step, whoever the oldest tree is."""
        return self._table.free() > self.max_model_len // self._table.size + 3 * len(self.requests)

    def _make_room(self) -> None:
        """If this step could not get its blocks, take them from the youngest trees that hold any.

        vLLM can only preempt what runs; the blocks may be held by parents and branches that wait. The oldest tree is
        never touched, so it ends some day, and then the next one is the oldest.
        """
        trees = self._trees()
        holding = [tree for tree in trees[1:] if any(map(self._held, tree.members.values()))]
        while holding and self._table.free() < self._blocks_needed(trees[0]):
            self._replay(holding.pop())
        if trees and not holding and not self.running and self._table.free() < self._blocks_needed(trees[0]):
            self._failed.append(trees[0])  # alone, and it does not fit

    def _readmit(self) -> None:
        """Let trees that gave up their blocks begin again: the oldest at once, others when as many are free again."""
        exiles = sorted(filter(self._lives, self._exiles), key=lambda tree: tree.root.request.arrival_time)
        trees = self._trees()
        promised = self._blocks_needed(trees[0]) + len(self._members) if trees else 0
        begins = list(returning(exiles, trees[0], self._table.free(), promised)) if trees else []
        self._exiles = [tree for tree in exiles if tree not in begins]
        for tree in begins:
            self._begin(tree.root)

    def _held(self, member: Member) -> int:
        return self._table.held(member.request.request_id)

    def _blocks_needed(self, oldest: RequestTree) -> int:
        """Blocks that running requests grow into in this step, and those the oldest tree's waiting members need."""
        size = self._table.size
        needed = sum(request.num_computed_tokens % size == 0 for request in self.running)
        for member in oldest.members.values():
            if member.parked:
                needed += self._starts_branches(member)
            elif member.request not in self.running:
                needed += max(0, -(-member.request.num_tokens // size) - self._held(member))
        return needed

    def _starts_branches(self, member: Member) -> bool:
        children = member.parts()[member.part].children
        return any(c.status is not Status.WAITING and c.key not in member.tree.members for c in children)

    def _order_queue(self) -> None:
        """The queue of those that hold blocks is first come, first served: an old tree must not wait behind others."""
        queue = self.kv_holding_waiting
        if len(queue) > 1:
            requests = sorted(queue, key=lambda request: request.arrival_time)
            queue.remove_requests(requests)
            for request in requests:
                queue.add_request(request)

    def _preempt_request(self, request: Request, timestamp: float, drop_stale_output: bool = False) -> None:
        member = self._members.get(request.request_id)
        structured = member is not None and member.tree.structured
        super()._preempt_request(request, timestamp, drop_stale_output or structured)
        if member is not None and structured:
            self._preempted.append(member.tree)

    def _replay(self, tree: RequestTree) -> None:
        """Give up all KV of a tree and compute it again, exactly, when there is room."""
        root = tree.root
        tree.replays += 1
        self.tally.count("replays")
        blocks = 0
        for member in tree.members.values():
            shared = 0 if member.strand.parent is None else tree.members[member.strand.parent.key].request.num_tokens
            tree.recomputed += max(0, member.request.num_computed_tokens - shared)
            blocks += self._held(member) - shared // self._table.size
        others = [member.request.request_id for member in tree.members.values() if member is not root]
        for request_id in others:
            self._members.pop(request_id)
        super().finish_requests([i for i in others if i in self.requests], RequestStatus.FINISHED_ABORTED)
        tree.members = {(): root}
        self._leave_queues(root.request)
        self._recall(root.request)
        self.kv_cache_manager.free(root.request)
        root.request.num_computed_tokens, root.request.status = 0, RequestStatus.WAITING
        root.parked = root.draining = False
        tree.given_up = blocks
        self._exiles.append(tree)

    def get_num_unfinished_requests(self) -> int:
        """vLLM counts its queues; a tree may be in none of them between two steps."""
        count = super().get_num_unfinished_requests()
        return max(count, len(self._members)) if self._pause_state == PauseState.UNPAUSED else count
