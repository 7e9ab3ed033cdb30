"""KV blocks of branches: shared at a fork, spliced at a join (SEMANTICS section 2).

Attention over past KV is a sum over a set and keys carry their positions, so a joined sequence may hold its tokens in
any order. Full blocks of a branch are adopted as they are; only the loose tokens of partly filled blocks are moved.
Every block has a reference count; whoever is handed a block here owns one reference to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

UNCACHED = 1 << 40
"""As number of blocks already in the prefix cache: vLLM then never adds one of the request. KV with other than causal
positions must not be served to requests whose tokens mean something else."""

Move = tuple[int, int, int, int]
"""Source block and offset, destination block and offset, of one token in every layer."""


@dataclass
class Moves:
    """Token moves of the next step. The source blocks stay referenced until that step has run."""

    moves: list[Move] = field(default_factory=list)
    sources: list[Any] = field(default_factory=list)


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

    def share(self, parent: str, child: str, length: int) -> None:
        """Give `child` the first `length` tokens of `parent`: full blocks by reference, the rest as a copy.

        Needs one free block if `length` is not a multiple of the block size.
        """
        full, rest = divmod(length, self.size)
        blocks = list(self.manager.req_to_blocks[parent])
        shared = blocks[:full]
        self.pool.touch(shared)
        if rest:
            source, (copy,) = blocks[full], self.pool.get_new_blocks(1)
            self.pool.touch([source])  # vLLM releases both once the copy has run
            copy.ref_cnt += 1
            self.manager._pending_cow_copies.append((source, copy))
            shared.append(copy)
        self.manager.req_to_blocks[child] = shared
        self.manager.num_cached_block[child] = UNCACHED

    def splice(self, parent: str, length: int, branches: Sequence[tuple[str, int]]) -> Moves:
        """Put what the branches hold beyond `length` behind the first `length` tokens of `parent`.

        Args:
            parent: the request that goes on.
            length: tokens it holds.
            branches: requests that share them, and how many tokens each holds in all.

        Returns:
            the moves to do before the next step. The branches keep their references and can be freed at once.
        """
        full, rest = divmod(length, self.size)
        own = list(self.manager.req_to_blocks[parent])
        tail, spare = own[full : full + (rest > 0)], own[full + (rest > 0) :]
        adopted: list[Any] = []
        loose: list[tuple[Any, int]] = []
        for branch, end in branches:
            self._sort(self.manager.req_to_blocks[branch], length, end, adopted, loose)
        self.pool.touch(adopted)
        wanted = -(-(rest + len(loose)) // self.size) - len(tail)
        fresh, unused = spare[:wanted], spare[wanted:]
        fresh += self._find(wanted - len(fresh), loose)
        self.pool.free_blocks(unused)
        tail += fresh
        moves = Moves()
        for slot, (block, offset) in enumerate(loose, rest):
            moves.moves.append((block.block_id, offset, tail[slot // self.size].block_id, slot % self.size))
        moves.sources = list({block.block_id: block for block, _ in loose}.values())
        self.pool.touch(moves.sources)
        self.manager.req_to_blocks[parent] = own[:full] + adopted + tail
        self.manager.num_cached_block[parent] = UNCACHED
        return moves

    def _sort(self, blocks: list[Any], start: int, end: int, adopted: list[Any], loose: list[tuple[Any, int]]) -> None:
        """Sort the tokens `[start, end)` of one branch into whole blocks and loose tokens."""
        for index in range(start // self.size, -(-end // self.size)):
            first, last = max(start, index * self.size), min(end, (index + 1) * self.size)
            if last - first == self.size:
                adopted.append(blocks[index])
            else:
                loose += [(blocks[index], offset % self.size) for offset in range(first, last)]

    def _find(self, count: int, loose: list[tuple[Any, int]]) -> list[Any]:
        """`count` blocks to move loose tokens into; from the branches' own leftovers if the pool is empty.

        The worker gathers before it scatters, so a block may be source and destination at once.
        """
        if count <= self.free():
            return list(self.pool.get_new_blocks(count)) if count > 0 else []
        own = list({block.block_id: block for block, _ in loose}.values())[:count]
        self.pool.touch(own)
        return own

    def drop_copies(self) -> None:
        """Forget the copies that are still to be made: nobody is left who needs them."""
        for source, copy in self.manager.take_pending_cow_copies():
            self.pool.free_blocks([source, copy])

    def release(self, blocks: list[Any]) -> None:
        """Drop one reference to each of `blocks`."""
        self.pool.free_blocks(blocks)
