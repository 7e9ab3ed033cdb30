"""KV blocks of branches: shared at a fork, spliced at a join (SEMANTICS section 2).

Which of them are adopted and which tokens are moved is planned by `decoding.splice`. Every block has a reference
count; whoever is handed a block here owns one reference to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multiverse.decoding.splice import plan_splice

UNCACHED = 1 << 40
"""As number of blocks already in the prefix cache: vLLM then never adds one of the request. KV with other than causal
positions must not be served to requests whose tokens mean something else."""

Move = tuple[int, int, int, int]
"""Source block and offset, destination block and offset, of one token in every layer."""


class BlockTable:
    """The blocks of the requests of one scheduler."""

    def __init__(self, kv_cache_manager: Any) -> None:
        (self.manager,) = kv_cache_manager.coordinator.single_type_managers
        self.pool = kv_cache_manager.block_pool
        self.size: int = self.manager.block_size

    def free(self) -> int:
        """Number of free blocks."""
        return int(self.pool.get_num_free_blocks())

    def total(self) -> int:
        """Number of blocks that requests can hold together."""
        return int(self.pool.num_gpu_blocks) - 1  # vLLM keeps one as a placeholder

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

    def acquire(self, request: str, blocks: list[Any]) -> None:
        """Let `request`, which holds nothing, begin with `blocks` of the prefix cache."""
        self.pool.touch(blocks)
        self.manager.req_to_blocks[request] = list(blocks)
        self.manager.num_cached_block[request] = len(blocks)

    def splice(self, parent: str, length: int, branches: Sequence[tuple[str, int]]) -> list[Move]:
        """Put what the branches hold beyond `length` behind the first `length` tokens of `parent`.

        Args:
            parent: the request that goes on.
            length: tokens it holds.
            branches: requests that share them, and how many tokens each holds in all.

        Returns:
            the moves that workers have to do before anything else of the next step. The branches keep their references
            and can be freed at once: nothing is written to their blocks before those moves.
        """
        plan = plan_splice(length, [end for _, end in branches], self.size)
        tables = [self.manager.req_to_blocks[branch] for branch, _ in branches]
        full, rest = divmod(length, self.size)
        own = list(self.manager.req_to_blocks[parent])
        kept, spare = own[: full + (rest > 0)], own[full + (rest > 0) :]
        adopted = [
            block
            for branch, start, end in plan.adopted
            for block in tables[branch][start // self.size : end // self.size]
        ]
        sources = [
            (tables[branch][at // self.size], at % self.size)
            for branch, start, end in plan.loose
            for at in range(start, end)
        ]
        wanted = -(-(len(sources) - plan.fill) // self.size)
        fresh, unused = spare[:wanted], spare[wanted:]
        fresh += self._find(wanted - len(fresh), [block for block, _ in sources])
        self.pool.touch(adopted)
        self.pool.free_blocks(unused)
        places = [(kept[full], rest + slot) for slot in range(plan.fill)]
        places += [(block, slot) for block in fresh for slot in range(self.size)]
        self.manager.req_to_blocks[parent] = kept + adopted + fresh
        return [
            (source.block_id, offset, target.block_id, slot)
            for (source, offset), (target, slot) in zip(sources, places, strict=False)
        ]

    def _find(self, count: int, sources: list[Any]) -> list[Any]:
        """`count` blocks to move loose tokens into; from those that they come from if the pool is empty.

        The worker gathers before it scatters, so a block may be source and destination at once.
        """
        if count <= self.free():
            return list(self.pool.get_new_blocks(count)) if count > 0 else []
        own = list({block.block_id: block for block in sources}.values())[:count]
        self.pool.touch(own)
        return own

    def drop_copies(self) -> None:
        """Forget the copies that are still to be made: nobody is left who needs them."""
        for source, copy in self.manager.take_pending_cow_copies():
            self.pool.free_blocks([source, copy])
