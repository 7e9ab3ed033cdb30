"""KV blocks of branches: shared at a fork, spliced at a join (SEMANTICS section 2).

Which of them are adopted and which tokens are moved is planned by `decoding.splice`. Every block has a reference
count; whoever is handed a block here owns one reference to it. What workers have yet to do about blocks waits here too:
copies, which vLLM sends with its next step, and moves, which travel in that step's plan.
"""

from __future__ import annotations

from collections.abc import Sequence

from multiverse.decoding.splice import Splice, plan_splice
from multiverse_vllm.plan import Move
from multiverse_vllm.scheduler.host import Block, BlockManager, BlockPool

UNCACHED = 1 << 40
"""As number of blocks already in the prefix cache: vLLM then never adds one of the request. KV with other than causal
positions must not be served to requests whose tokens mean something else."""


class BlockTable:
    """The blocks of the requests of one scheduler.

    Attributes:
        size: tokens of a block.
        moves: what workers have to do before anything else of the next step.
    """

    def __init__(self, pool: BlockPool, manager: BlockManager) -> None:
        self.pool, self.manager = pool, manager
        self.size = manager.block_size
        self.moves: list[Move] = []

    def blocks(self, length: int) -> int:
        """Number of blocks that `length` tokens take."""
        return -(-length // self.size)

    def free(self) -> int:
        """Number of free blocks."""
        return self.pool.get_num_free_blocks()

    def total(self) -> int:
        """Number of blocks that requests can hold together."""
        return self.pool.num_gpu_blocks - 1  # vLLM keeps one as a placeholder

    def held(self, request: str) -> int:
        """Number of blocks that `request` holds."""
        return len(self.manager.req_to_blocks.get(request, ()))

    def evict(self, requests: Sequence[str]) -> None:
        """Let nobody find in the prefix cache what `requests` hold; others who share it keep it."""
        tables = self.manager.req_to_blocks
        self.pool.evict_blocks({block.block_id for request in requests for block in tables.get(request, ())})

    def share(self, parent: str, child: str, length: int) -> None:
        """Give `child` the first `length` tokens of `parent`: full blocks by reference, the rest as a copy.

        Needs one free block if `length` is not a multiple of the block size.
        """
        assert not self.held(child)
        full, rest = divmod(length, self.size)
        blocks = list(self.manager.req_to_blocks[parent])
        shared = blocks[:full]
        copies = self.pool.get_new_blocks(1) if rest else []
        self.pool.touch(shared)
        for copy in copies:
            self.pool.touch([blocks[full]])  # vLLM releases both once the copy has run
            copy.ref_cnt += 1
            self.manager._pending_cow_copies.append((blocks[full], copy))
        self.manager.req_to_blocks[child] = shared + copies
        self.manager.num_cached_block[child] = UNCACHED
        assert self.held(child) == self.blocks(length)

    def acquire(self, request: str, blocks: list[Block]) -> None:
        """Let `request`, which holds nothing, begin with `blocks` of the prefix cache."""
        assert not self.held(request)
        self.pool.touch(blocks)
        self.manager.req_to_blocks[request] = list(blocks)
        self.manager.num_cached_block[request] = len(blocks)

    def splice(self, parent: str, length: int, branches: Sequence[tuple[str, int]]) -> int:
        """Put what the branches hold beyond `length` behind the first `length` tokens of `parent`.

        The branches keep their references and can be freed at once: nothing is written to their blocks before `moves`.

        Args:
            parent: the request that goes on.
            length: tokens it holds.
            branches: requests that share them, and how many tokens each holds in all.

        Returns:
            how many single tokens are moved for it.
        """
        plan = plan_splice(length, [end for _, end in branches], self.size)
        tables = [self.manager.req_to_blocks[branch] for branch, _ in branches]
        full, rest = divmod(length, self.size)
        own = list(self.manager.req_to_blocks[parent])
        filled, spare = own[: full + (rest > 0)], own[full + (rest > 0) :]
        adopted, sources = self._sort(plan, tables)
        wanted = self.blocks(len(sources) - plan.fill)
        fresh, unused = spare[:wanted], spare[wanted:]
        fresh += self._find(wanted - len(fresh), [block for block, _ in sources])
        self.pool.touch(adopted)
        self.pool.free_blocks(unused)
        places = [(filled[full], rest + slot) for slot in range(plan.fill)]
        places += [(block, slot) for block in fresh for slot in range(self.size)]
        self.manager.req_to_blocks[parent] = filled + adopted + fresh
        self.moves += [
            (source.block_id, offset, target.block_id, slot)
            for (source, offset), (target, slot) in zip(sources, places, strict=False)
        ]
        assert self.held(parent) == self.blocks(length + sum(end - length for _, end in branches))
        return len(sources)

    def _sort(self, plan: Splice, tables: list[list[Block]]) -> tuple[list[Block], list[tuple[Block, int]]]:
        """The blocks of the branches that change hands, and block and offset of every other token."""
        adopted = [
            block
            for branch, start, end in plan.adopted
            for block in tables[branch][start // self.size : end // self.size]
        ]
        loose = [
            (tables[branch][at // self.size], at % self.size)
            for branch, start, end in plan.loose
            for at in range(start, end)
        ]
        return adopted, loose

    def _find(self, count: int, sources: list[Block]) -> list[Block]:
        """`count` blocks to move loose tokens into; from those that they come from if the pool is empty.

        The worker gathers before it scatters, so a block may be source and destination at once.
        """
        if count <= self.free():
            return list(self.pool.get_new_blocks(count)) if count > 0 else []
        own = list({block.block_id: block for block in sources}.values())[:count]
        self.pool.touch(own)
        return own

    def take_moves(self) -> list[Move]:
        """The moves, for the plan of the step that begins."""
        moves, self.moves = self.moves, []
        return moves

    def drop_pending(self) -> None:
        """Forget the moves and copies that are still to be made: nobody is left who needs them."""
        self.moves = []
        for source, copy in self.manager.take_pending_cow_copies():
            self.pool.free_blocks([source, copy])
