"""KV slots of strands: shared at a fork, spliced at a join (SEMANTICS section 2).

A sequence is a list of slot indices; attention does not mind their order (`decoding.splice`). With pages of more than
one token, backends need each page's worth of them, counted from the first, to be one page in order. So a branch gets a
copy of its parent's last page if that is not full, and a join moves loose tokens into whole pages; with pages of one
token nothing is copied or moved. Every page has one owner (I1): the pool, the radix tree, a request in a batch, or a
strand that has it as `KVSlots`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from sglang.srt.mem_cache.allocation_sizing import get_alloc_reserve_per_decode, page_aligned_decode_alloc_lens

from multiverse.decoding.splice import Span, plan_splice
from multiverse.serving.metrics import Tally
from multiverse_sglang.host import Request, Scheduler
from multiverse_sglang.scheduler.kv_slots import KVSlots
from multiverse_sglang.scheduler.slot_moves import SlotMoves


class SlotPool:
    """SGLang's KV pool and radix tree, as far as strands need them. All that is counted is counted in slots.

    Attributes:
        total: slots that there are.
        page_size: tokens of a page.
        moves: of tokens from slot to slot.
    """

    def __init__(self, scheduler: Scheduler, tally: Tally) -> None:
        self.cache = scheduler.tree_cache
        self.allocator = scheduler.token_to_kv_pool_allocator
        self.rows = scheduler.req_to_token_pool
        self.total = scheduler.max_total_num_tokens
        self.page_size = scheduler.page_size
        self.moves = SlotMoves(scheduler)
        self._tally = tally
        self._drafts: int = 0 if scheduler.spec_algorithm.is_none() else get_alloc_reserve_per_decode()

    # --- how many ------------------------------------------------------------------------------------------------

    def free_slots(self) -> int:
        """Slots that are free, those included that the radix tree can give back."""
        return self.allocator.available_size() + self.cache.evictable_size()

    def owned_slots(self, slots: KVSlots) -> int:
        """Slots of the pages that `slots` owns, those of no token included."""
        return self.round_up(slots.length) - slots.owned_from if slots.length > slots.owned_from else 0

    def private_slots(self, run: Request) -> int:
        """The same of what a request has in its row, as SGLang counts it for those in batches."""
        return self.round_up(run.kv.kv_allocated_len) - run.kv.cache_protected_len

    def round_up(self, tokens: int) -> int:
        """Slots in the pages of a sequence of so many tokens."""
        return -(-tokens // self.page_size) * self.page_size

    def slots_next_step(self, requests: Iterable[Request]) -> int:
        """Slots that SGLang takes for the next token of each of `requests`: a page where the last one is full, and what
        drafts may need in this step and the next."""
        if reserve := self._drafts:
            return int(page_aligned_decode_alloc_lens([*requests], reserve=reserve, page_size=self.page_size)[2])
        return self.page_size * sum(request.kv.kv_committed_len % self.page_size == 0 for request in requests)

    def slots_missing(self, slots: KVSlots | None, tokens: int) -> int:
        """Slots that a sequence of so many tokens takes beyond those it has.

        A last page that is not full counts as there only if it is the sequence's own: else it gets one (`unshare`).
        """
        if slots is None:
            return self.round_up(tokens)
        owns_last_page = slots.owned_from < slots.length
        there = self.round_up(slots.length) if owns_last_page else slots.length // self.page_size * self.page_size
        return max(0, self.round_up(tokens) - there)

    def min_slots(self, tokens: int, branches: int) -> int:
        """Slots that a sequence of so many tokens takes together with branches that have a few of their own."""
        rest = tokens % self.page_size
        return tokens - rest + branches * self.round_up(rest + 8 + self._drafts)

    # --- from SGLang's requests and back -------------------------------------------------------------------------

    def take_over(self, run: Request, tokens: int, lock: object) -> KVSlots:
        """Take the slots of the first so many tokens of a request's row, and free the rest of it and the row.

        Afterwards the request has no KV, and the caller owns what the request owned: all behind what it found in the
        radix tree, or was begun with (`cache_protected_len`). `lock` goes with it.
        """
        kv = run.kv
        row, end = self.rows.req_to_token[kv.req_pool_idx], self.round_up(tokens)
        indices = row[:tokens].to(torch.int64, copy=True)
        if kv.kv_allocated_len > end:
            self.allocator.free(row[end : kv.kv_allocated_len].to(torch.int64, copy=True))
        slots = KVSlots(indices, min(kv.cache_protected_len, tokens), lock)
        self.rows.free(run)
        kv.mark_kv_released()
        return slots

    def empty(self) -> KVSlots:
        """What a sequence begins with that has no KV yet."""
        return KVSlots(torch.empty(0, dtype=torch.int64, device=self.rows.device), 0)

    def release(self, slots: KVSlots) -> None:
        """Give back what `slots` owns, and its lock. The caller forgets it."""
        if slots.length > slots.owned_from:
            self.allocator.free(slots.owned)
        self.cache.unlock(slots.lock)

    def truncate(self, slots: KVSlots, tokens: int) -> None:
        """Go on with the first so many tokens of `slots`, and give back what it owns of the others: whole pages.

        What comes next is written into the last page of what stays, so that has to be its own.
        """
        assert self.page_size == 1 or tokens >= slots.owned_from
        first = max(self.round_up(tokens), slots.owned_from)
        if slots.length > first:
            self.allocator.free(slots.indices[first:])
        slots.indices, slots.owned_from = slots.indices[:tokens], min(slots.owned_from, tokens)

    def adopt(self, parent: KVSlots, retained: KVSlots) -> KVSlots:
        """A branch that was computed apart, as one that began with the slots of `parent`; `retained` has nothing then.

        Of the page in which it goes on by itself it keeps its own.
        """
        start = parent.length // self.page_size * self.page_size
        self.allocator.free(retained.indices[retained.owned_from : start])
        self.cache.unlock(retained.lock)
        return KVSlots(torch.cat([parent.indices[:start], retained.indices[start:]]), start)

    # --- fork ------------------------------------------------------------------------------------------------------

    def share(self, slots: KVSlots) -> KVSlots:
        """What a branch begins with: all slots of its parent, none of them its own. The parent has to outlive it."""
        return KVSlots(slots.indices, slots.length)

    def unshare(self, slots: KVSlots) -> None:
        """Give a branch that SGLang is about to extend a page of its own in place of one that it shares in part.

        Its tokens are copied before the next forward. SGLang has room for it: it reserves a page more than a request is
        extended by.

        Raises:
            RuntimeError: if no page is free.
        """
        rest = slots.owned_from % self.page_size
        if not rest:
            return
        assert slots.owned_from == slots.length, "a branch that owns anything begins with a page"
        self.allocator.evict_to_free_tokens(self.cache, self.page_size)
        page = self.allocator.alloc(self.page_size)
        if page is None:
            raise RuntimeError("multiverse: no page is free for a branch that SGLang admitted")
        self.moves.schedule(slots.indices[-rest:], page[:rest])
        slots.indices = torch.cat([slots.indices[:-rest], page[:rest]])
        slots.owned_from -= rest
        self._tally.count("copied_tokens", rest)

    # --- join ------------------------------------------------------------------------------------------------------

    def splice(self, parent: KVSlots, branches: Sequence[KVSlots]) -> KVSlots:
        """The parent's slots and behind them each branch's own: `[tokens of parent + own tokens of each branch]`.

        It owns what parent and branches owned; they are not to be used afterwards. Whole pages change their owner as
        they are. Loose tokens are moved, first into what is free of the parent's last page, then into pages that some
        of them come from, so no page has to be free; pages that are left over are freed.
        """
        assert parent.owned_from % self.page_size == 0
        length, nothing = parent.length, parent.indices[:0]
        plan = plan_splice(length, [branch.length for branch in branches], self.page_size)

        def indices(spans: Iterable[Span]) -> torch.Tensor:
            return torch.cat([nothing, *(branches[branch].indices[start:end] for branch, start, end in spans)])

        loose, adopted = indices(plan.loose), indices(plan.adopted)
        if pages := [page for branch in branches for page in self._partial_pages(branch, length)]:
            firsts = torch.cat(pages)
            wanted = -(-(len(loose) - plan.fill) // self.page_size)
            room = torch.arange(self.page_size, device=loose.device)
            fresh = (firsts[:wanted, None] + room).flatten()[: len(loose) - plan.fill]
            filled = parent.indices[-1:] + 1 + room[: plan.fill]
            self.moves.now(loose, torch.cat([filled, fresh]))
            self.allocator.free(firsts[wanted:])
            adopted = torch.cat([filled, adopted, fresh])
            self._tally.count("moved_tokens", len(loose))
        assert len(adopted) == sum(branch.length - length for branch in branches)
        return KVSlots(torch.cat([parent.indices, adopted]), parent.owned_from, parent.lock)

    def _partial_pages(self, branch: KVSlots, shared: int) -> Iterable[torch.Tensor]:
        """The first slots of the pages of a branch that are not all of its own tokens: at most two."""
        end = branch.length
        full = range(self.round_up(shared), end // self.page_size * self.page_size)
        for at in (*range(branch.owned_from, min(full.start, end), self.page_size), max(full.start, full.stop)):
            if at < end:
                yield branch.indices[at : at + 1]
