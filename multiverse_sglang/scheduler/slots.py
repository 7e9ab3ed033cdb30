"""KV slots of strands: shared at a fork, spliced at a join (SEMANTICS section 2).

A sequence is a list of slot indices; attention does not mind their order (`decoding.splice`). With pages of more than
one token, backends need each page's worth of them, counted from the first, to be one page in order. So a branch gets a
copy of its parent's last page if that is not full, and a join moves loose tokens into whole pages; with pages of one
token nothing is copied or moved. Every page has one owner: the pool, the radix tree, a request in a batch, or a strand
that holds it here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from multiverse.decoding.splice import Span, plan_splice
from multiverse.serving.metrics import Tally
from multiverse_sglang.scheduler.tree import Held


class SlotPool:
    """SGLang's KV pool and radix tree, as far as strands need them."""

    def __init__(self, scheduler: Any, tally: Tally) -> None:
        self.cache = scheduler.tree_cache
        self.allocator = scheduler.token_to_kv_pool_allocator
        self.rows = scheduler.req_to_token_pool
        self.total: int = scheduler.max_total_num_tokens
        self.page: int = scheduler.page_size
        self._kv = self.allocator.get_kvcache()
        self._scheduler = scheduler
        self._tally = tally
        self._copies: list[tuple[torch.Tensor, torch.Tensor]] = []

    # --- how much ----------------------------------------------------------------------------------------------

    def free(self) -> int:
        """Tokens there is room for, those included that the radix tree can give back."""
        return int(self.allocator.available_size() + self.cache.evictable_size())

    def owned(self, held: Held) -> int:
        """Slots in the pages that `held` owns."""
        length = len(held.slots)
        return self.whole(length) - held.own if length > held.own else 0

    def whole(self, length: int) -> int:
        """Slots in the pages of a sequence of `length` tokens."""
        return -(-length // self.page) * self.page

    def growth(self, requests: Iterable[Any]) -> int:
        """Slots that SGLang takes for the next token of each of `requests`."""
        return self.page * sum(request.kv.kv_committed_len % self.page == 0 for request in requests)

    def missing(self, held: Held | None, length: int) -> int:
        """Slots that a sequence of `length` tokens takes beyond what it holds."""
        have = 0 if held is None else len(held.slots)
        alone = held is not None and held.own < have
        return max(0, self.whole(length) - (self.whole(have) if alone else have // self.page * self.page))

    def least(self, length: int, branches: int) -> int:
        """Slots that a sequence of `length` tokens and as many branches with a few of their own take."""
        rest = length % self.page
        return length - rest + branches * self.whole(rest + 8)

    @property
    def pending(self) -> int:
        """Pages that the next forward has to fill first."""
        return len(self._copies)

    # --- from SGLang's requests and back -------------------------------------------------------------------------

    def take(self, run: Any, length: int, lock: Any) -> Held:
        """Take the first `length` tokens of a request's row, and free the rest of it and the row."""
        kv = run.kv
        row = self.rows.req_to_token[kv.req_pool_idx]
        slots = row[:length].to(torch.int64, copy=True)
        if kv.kv_allocated_len > self.whole(length):
            self.allocator.free(row[self.whole(length) : kv.kv_allocated_len].to(torch.int64, copy=True))
        held = Held(slots, min(kv.cache_protected_len, length), lock)
        self.rows.free(run)
        kv.mark_kv_released()
        return held

    def nothing(self) -> Held:
        """What a sequence begins with that has no KV yet."""
        return Held(torch.empty(0, dtype=torch.int64, device=self.rows.device), 0)

    def cut(self, held: Held, length: int) -> None:
        """Keep the first `length` slots of `held` and give back what it owns of the others, which is whole pages.

        What comes next is written into the last page of what is kept, so that has to be its own.
        """
        assert self.page == 1 or length >= held.own
        first = max(self.whole(length), held.own)
        if len(held.slots) > first:
            self.allocator.free(held.slots[first:])
        held.slots, held.own = held.slots[:length], min(held.own, length)

    def adopt(self, parent: Held, kept: Held) -> Held:
        """A branch computed apart, as one that began with the slots of `parent`. Nothing stays with `kept`.

        Of the page in which it goes on by itself it keeps its own.
        """
        start = len(parent.slots) // self.page * self.page
        self.allocator.free(kept.slots[kept.own : start])
        self.cache.unlock(kept.lock)
        return Held(torch.cat([parent.slots[:start], kept.slots[start:]]), start)

    def release(self, held: Held) -> None:
        """Give back what `held` owns."""
        if len(held.slots) > held.own:
            self.allocator.free(held.slots[held.own :])
        self.cache.unlock(held.lock)

    # --- map -----------------------------------------------------------------------------------------------------

    def share(self, held: Held) -> Held:
        """What a branch begins with: all slots of its parent, none of them its own."""
        return Held(held.slots, len(held.slots))

    def part(self, held: Held) -> None:
        """Give a branch that SGLang is about to extend a page of its own in place of one that it shares in part.

        SGLang has room for it: it reserves a page more than a request is extended by.
        """
        rest = held.own % self.page
        if not rest:
            return
        self.allocator.evict_to_free_tokens(self.cache, self.page)
        page = self.allocator.alloc(self.page)
        if page is None:
            raise RuntimeError("multiverse: no page is free for a branch that SGLang admitted")
        self._copies.append((held.slots[-rest:], page[:rest]))
        held.slots, held.own = torch.cat([held.slots[:-rest], page[:rest]]), held.own - rest
        self._tally.count("copied_tokens", rest)

    def copy(self) -> None:
        """Fill the pages that branches were given. To be called where the next forward runs, before it."""
        if self._copies:
            sources, targets = zip(*self._copies, strict=True)
            self._copies = []
            self._move(sources, targets)

    # --- reduce --------------------------------------------------------------------------------------------------

    def splice(self, parent: Held, branches: Sequence[Held]) -> Held:
        """The parent's slots and behind them each branch's own. The branches own nothing afterwards.

        Loose tokens are moved into pages that some of them come from, so no page has to be free.
        """
        assert parent.own % self.page == 0
        length, nothing = len(parent.slots), parent.slots[:0]
        plan = plan_splice(length, [len(branch.slots) for branch in branches], self.page)

        def slots(spans: Iterable[Span]) -> torch.Tensor:
            return torch.cat([nothing, *(branches[branch].slots[start:end] for branch, start, end in spans)])

        loose, adopted = slots(plan.loose), slots(plan.adopted)
        if pages := [page for branch in branches for page in self._partial_pages(branch, length)]:
            firsts = torch.cat(pages)
            wanted = -(-(len(loose) - plan.fill) // self.page)
            room = torch.arange(self.page, device=loose.device)
            fresh = (firsts[:wanted, None] + room).flatten()[: len(loose) - plan.fill]
            filled = parent.slots[-1:] + 1 + room[: plan.fill]
            with self._forward_order():
                self._move([loose], [filled, fresh])
            self.allocator.free(firsts[wanted:])
            adopted = torch.cat([filled, adopted, fresh])
            self._tally.count("moved_tokens", len(loose))
        return Held(torch.cat([parent.slots, adopted]), parent.own, parent.lock)

    def _partial_pages(self, branch: Held, shared: int) -> Iterable[torch.Tensor]:
        """The first slots of the pages of a branch that are not all of its own tokens: at most two."""
        end = len(branch.slots)
        full = range(self.whole(shared), end // self.page * self.page)
        for at in (*range(branch.own, min(full.start, end), self.page), max(full.start, full.stop)):
            if at < end:
                yield branch.slots[at : at + 1]

    # --- moves ---------------------------------------------------------------------------------------------------

    def _move(self, sources: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> None:
        """Move tokens in every layer; all are gathered before any is written."""
        for slots in (*sources, *targets):
            if slots.device.type != "cpu":  # made on the scheduler's stream, and not to be used again before this ran
                slots.record_stream(torch.get_device_module(slots.device).current_stream())
        self._kv.move_kv_cache(torch.cat(targets), torch.cat(sources))

    def _forward_order(self) -> AbstractContextManager[Any]:
        """What is done here comes after the forward under way and before the next one."""
        scheduler = self._scheduler
        if not scheduler.enable_overlap:
            return nullcontext()
        scheduler.forward_stream.wait_stream(scheduler.schedule_stream)
        context: AbstractContextManager[Any] = scheduler.forward_stream_ctx
        return context


def can_move(kv: Any) -> bool:
    """Whether tokens can be moved within the KV pool `kv`.

    From then on by indexing: SGLang prepares its own kernel for speculative decoding only, and that writes some tokens
    before it has read all.
    """
    if getattr(kv, "kv_cache_layout", "") == "vectorized_5d":
        return False  # SGLang would index pages as if they were tokens
    if hasattr(kv, "use_native_move_kv_cache"):
        kv.use_native_move_kv_cache = True
    padding = torch.zeros(1, dtype=torch.int64, device=kv.device)
    try:
        kv.move_kv_cache(padding, padding)
    except (AttributeError, AssertionError, RuntimeError):
        return False
    return True
