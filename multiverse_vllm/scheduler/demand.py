"""How many KV blocks are needed: for the next step, to start a branch, for the most senior tree to go on at all."""

from __future__ import annotations

from multiverse.decoding.replay import parts
from multiverse.decoding.strand import Status, Strand
from multiverse_vllm.scheduler.host import Request
from multiverse_vllm.scheduler.state import State
from multiverse_vllm.scheduler.tree import Member, RequestTree


class Demand:
    """What the trees of one scheduler hold and miss, in blocks."""

    def __init__(self, state: State) -> None:
        self._host, self._table, self._queue = state.host, state.table, state.queue

    def own_kv(self, member: Member) -> tuple[int, int]:
        """Tokens and blocks that a strand holds beyond its parent's; of blocks, beyond those that they share."""
        parent = member.strand.parent
        before = 0 if parent is None else member.tree.members[parent.key].request.num_tokens
        blocks = self._held(member) - member.shared // self._table.size
        return max(0, member.request.num_computed_tokens - before), max(0, blocks)

    def is_ample(self) -> bool:
        """Whether memory is so ample that nobody can come short in this step, whoever the most senior tree is."""
        each = 3 + self._table.blocks(self._host.num_spec_tokens)
        return self._table.free() > self._host.max_model_len // self._table.size + each * len(self._host.requests)

    def holds(self, tree: RequestTree) -> bool:
        """Whether a tree has any blocks."""
        return any(map(self._held, tree.members.values()))

    def _held(self, member: Member) -> int:
        return self._table.held(member.request.request_id)

    def next_step(self, tree: RequestTree) -> int:
        """Blocks that running requests grow into in this step, and those that the strands of `tree` in a queue miss."""
        running = self._queue.running()
        needed = 0
        for request in running:  # each of which computes a token, and what was drafted behind it
            end = request.num_computed_tokens + 1 + len(request.spec_token_ids)
            needed += max(0, self._table.blocks(end) - self._table.held(request.request_id))
        for member in tree.members.values():
            if not member.parked and member.request not in running:
                needed += max(0, self._table.blocks(self._to_begin(member.request)) - self._held(member))
        return needed

    def _to_begin(self, request: Request) -> int:
        """Tokens that a waiting request needs blocks for. vLLM fills a single one up by as many as are drafted."""
        single = request.num_tokens - request.num_computed_tokens == 1
        return request.num_tokens + (self._host.num_spec_tokens if single else 0)

    def of(self, tree: RequestTree) -> int:
        """`next_step`, and a block per strand that starts branches; what one of these needs if nothing else goes on."""
        ready = [(member, self._ready(member)) for member in tree.members.values()]
        starts = [min(self._to_start(member, child) for child in children) for member, children in ready if children]
        return self.next_step(tree) + (len(starts) if _open(tree) else min(starts, default=0))

    def leaves_room_for(self, parent: Member, branch: Strand) -> bool:
        """Whether a branch can start and every open strand of the tree still grow: else one would be set back soon."""
        needs, others = self._to_start(parent, branch), _open(parent.tree)
        return self.is_ample() or self._table.free() >= needs + (others and others + self.next_step(parent.tree))

    def _ready(self, parent: Member) -> list[Strand]:
        """The branches of a parked strand that have no request and could have one."""
        children = parent.parts()[parent.part].children if parent.parked else ()
        known = parent.tree.members
        return [child for child in children if child.status is not Status.WAITING and child.key not in known]

    def _to_start(self, parent: Member, branch: Strand) -> int:
        """Blocks to start a branch with: for what it has said already, and the copy of a partly filled one."""
        length, shared = parent.request.num_tokens, parent.request.num_computed_tokens
        said = parts(parent.tree.controller, branch)[0].tokens
        return int(self._table.blocks(length + len(said)) - shared // self._table.size)


def _open(tree: RequestTree) -> int:
    """The strands of `tree` that are being computed or wait for their turn."""
    return sum(not member.parked for member in tree.members.values())
