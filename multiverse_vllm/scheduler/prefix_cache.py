"""Spliced KV in vLLM's prefix cache, under keys that say how it was laid out (invariant I4).

A block of a sequence that holds joined branches is keyed by its tokens, their positions and the branch that each of
them lies in, on top of the key of the block before it. A plain request never asks for such a key; a prompt that repeats
the tree, such as the next turn of a conversation, asks for the same ones, because the order of KV in blocks follows
from the tree and the block size alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vllm.v1.core.kv_cache_utils import _gen_lora_extra_hash_keys, hash_block_tokens

from multiverse.decoding.splice import Entry, KVOrder, kv_order
from multiverse.serving.resume import resume_point
from multiverse_vllm.scheduler.blocks import BlockTable
from multiverse_vllm.scheduler.host import Block, Request
from multiverse_vllm.scheduler.tree import Member


@dataclass(frozen=True)
class LayoutKeys:
    """What hashes the blocks of one root, in place of vLLM's own hasher, from its first join on.

    Attributes:
        order: up to the last join, and the part after it as far as it is known.
        delta: position delta of the tokens that follow.
    """

    hash_function: Callable[[object], bytes]
    size: int
    order: KVOrder
    delta: int

    def __call__(self, request: Request) -> list[bytes]:
        """The hashes of the full blocks that have none yet."""
        previous = request.block_hashes[-1] if request.block_hashes else None
        lora = tuple(_gen_lora_extra_hash_keys(request))
        found = []
        for start in range(len(request.block_hashes) * self.size, request.num_tokens - self.size + 1, self.size):
            block = [self._entry(request, at) for at in range(start, start + self.size)]
            tokens, positions, paths = zip(*block, strict=True)
            extra = ("multiverse", positions, paths, lora, request.cache_salt)
            previous = hash_block_tokens(self.hash_function, previous, tokens, extra)
            found.append(previous)
        return found

    def _entry(self, request: Request, at: int) -> Entry:
        known = self.order.entries
        return known[at] if at < len(known) else (request.all_token_ids[at], at + self.delta, ())


class PrefixCache:
    """Publishes joined roots, and finds them again.

    Args:
        hash_function: vLLM's; `None` if prefix caching is off.
    """

    def __init__(self, table: BlockTable, hash_function: Callable[[object], bytes] | None) -> None:
        self._table = table
        self._hash_function = hash_function

    def keys(self, root: Member) -> LayoutKeys | None:
        """What hashes `root` from now on, or `None` if it is not to be published."""
        if self._hash_function is None or root.tree.block_hasher is None or root.request.mm_features:
            return None
        order = kv_order(root.tree.controller, root.strand, self._table.size)
        return LayoutKeys(self._hash_function, self._table.size, order, root.parts()[-1].delta)

    def resume(self, root: Member) -> int | None:
        """Let `root`, which holds nothing, begin behind its last join that is still cached.

        Returns:
            the part that is to be computed next; `None` if no join is cached, and nothing was changed but the request's
            hashes.
        """
        request, known = root.request, root.parts()
        keys = self.keys(root) if len(known) > 1 and not request.skip_reading_prefix_cache else None
        if keys is None:
            return None
        request._all_token_ids[:] = known[0].tokens
        request.update_block_hashes()
        request._block_hasher = keys
        request._all_token_ids[:] = [token for token, _, _ in keys.order.entries]
        request.update_block_hashes()
        blocks = self._cached(request.block_hashes)
        part, length = resume_point(keys.order.spans, len(blocks) * self._table.size, self._table.size, whole=True)
        if part == 0:
            return None
        _, end = keys.order.spans[part]
        del request._all_token_ids[end:], request.block_hashes[end // self._table.size :]
        self._table.acquire(request.request_id, blocks[: self._table.blocks(length)])
        request.num_computed_tokens = length
        return part

    def _cached(self, hashes: list[bytes]) -> list[Block]:
        blocks: list[Block] = []
        for key in hashes:
            found = self._table.pool.get_cached_block(key, [0])
            if found is None:
                break
            blocks += found
        return blocks
