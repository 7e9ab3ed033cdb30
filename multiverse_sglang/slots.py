"""KV slots of strands: shared at a fork, spliced at a join (SEMANTICS section 2). Nothing is copied at page size 1.

Attention over past KV is a sum over a set and keys carry their positions, so a sequence is no more than a list of slot
indices. Every slot has one owner: the pool, the radix tree, a request in a batch, or a strand that holds it here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from multiverse_sglang.tree import Held


class SlotPool:
    """SGLang's KV pool and radix tree, as far as strands need them."""

    def __init__(self, scheduler: Any) -> None:
        self.cache = scheduler.tree_cache
        self.allocator = scheduler.token_to_kv_pool_allocator
        self.rows = scheduler.req_to_token_pool
        self.total: int = scheduler.max_total_num_tokens

    def free(self) -> int:
        """Tokens there is room for, those included that the radix tree can give back."""
        return int(self.allocator.available_size() + self.cache.evictable_size())

    def take(self, run: Any, length: int, lock: Any) -> Held:
        """Take the first `length` tokens of a request's row, and free the rest of it and the row."""
        kv = run.kv
        row = self.rows.req_to_token[kv.req_pool_idx]
        slots = row[:length].to(torch.int64, copy=True)
        if kv.kv_allocated_len > length:
            self.allocator.free(row[length : kv.kv_allocated_len].to(torch.int64, copy=True))
        held = Held(slots, min(kv.cache_protected_len, length), lock)
        self.rows.free(run)
        kv.mark_kv_released()
        return held

    def nothing(self) -> Held:
        """What a sequence begins with that has no KV yet."""
        return Held(torch.empty(0, dtype=torch.int64, device=self.rows.device), 0)

    def share(self, held: Held) -> Held:
        """What a branch begins with: all slots of its parent, none of them its own."""
        return Held(held.slots, len(held.slots))

    def splice(self, parent: Held, branches: Sequence[Held]) -> Held:
        """The parent's slots and behind them each branch's own. The branches own nothing afterwards."""
        return Held(torch.cat([parent.slots, *(b.slots[b.own :] for b in branches)]), parent.own, parent.lock)

    def release(self, held: Held) -> None:
        """Give back what `held` owns."""
        if len(held.slots) > held.own:
            self.allocator.free(held.slots[held.own :])
        self.cache.unlock(held.lock)
