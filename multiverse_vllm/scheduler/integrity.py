"""The adapter's books beside vLLM's (invariant I8): who is where, and to whom each KV block belongs."""

from __future__ import annotations

from collections import defaultdict

from multiverse.serving.integrity import leftovers, ownership, repeated, strangers
from multiverse_vllm.scheduler.memory import MemoryPressure
from multiverse_vllm.scheduler.state import State
from multiverse_vllm.scheduler.tokens import Tokens


class Books:
    """Compares them, for one scheduler."""

    def __init__(self, state: State, memory: MemoryPressure, tokens: Tokens) -> None:
        self._host, self._trees, self._table = state.host, state.trees, state.table
        self._memory, self._tokens = memory, tokens

    def problems(self) -> list[str]:
        """What does not agree, at any moment at which vLLM is not within the scheduler. Looks at every block."""
        host = self._host
        queues = (host.running, host.waiting, host.kv_holding_waiting)
        queued = [str(request.request_id) for queue in queues for request in queue]
        requests = set(host.requests)
        return [
            *strangers("members", set(self._trees.members), requests),
            *strangers("deferred requests", set(self._trees.deferred), requests - set(self._trees.members)),
            *strangers("queued requests", set(queued), requests),
            *strangers("requests with KV blocks", set(self._table.manager.req_to_blocks), requests),
            *strangers("members that nothing goes on with", self._idle(), set(queued)),
            *strangers("held branches", self._held(), {str(request.request_id) for request in host.running}),
            *repeated("the queues", queued),
            *ownership("block", self._owners(), self._references()),
            *self.remains(),
        ]

    def remains(self) -> list[str]:
        """What is left of anything, if no request is there; cheap enough for every time that the engine rests."""
        if self._host.requests:
            return []
        counts = {
            "blocks": self._table.total() - self._table.free(),
            "members": len(self._trees.members),
            "deferred requests": len(self._trees.deferred),
            "structured trees": len(self._trees.structured),
            "changed trees": len(self._trees.changed),
            "preempted trees": len(self._trees.preempted),
            "partly preempted trees": len(self._memory.partly_preempted),
            "closing strands": len(self._tokens.closing),
            "moves": len(self._table.moves),
        }
        return leftovers(counts)

    def _idle(self) -> set[str]:
        """Members that are neither parked nor of a tree without KV; vLLM has to have them in a queue."""
        return {
            name
            for name, member in self._trees.members.items()
            if not member.parked and id(member.tree) not in self._trees.preempted
        }

    def _held(self) -> set[str]:
        return {name for name, member in self._trees.members.items() if member.held_since is not None}

    def _owners(self) -> dict[int, list[str]]:
        """By block, who has it, once per reference."""
        owners = defaultdict(list)
        for request, blocks in self._table.manager.req_to_blocks.items():
            for block in blocks:
                owners[block.block_id].append(request)
        for pair in self._table.manager._pending_cow_copies:
            for block in pair:
                owners[block.block_id].append("a copy to be made")
        for _, blocks in self._host.deferred_frees:
            for block in blocks:
                owners[block.block_id].append("vLLM, which frees it later")
        owners.pop(self._table.pool.null_block.block_id, None)
        return owners

    def _references(self) -> dict[int, int]:
        """By block that is in use, its references. What none refers to must be free, and the other way round."""
        return {
            block.block_id: block.ref_cnt for block in self._table.pool.blocks if block.ref_cnt and not block.is_null
        }
