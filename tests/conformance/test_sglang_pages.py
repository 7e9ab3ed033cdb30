"""SGLang's own pool and allocator of pages under random forks and joins: KV stays what it was, pages have one owner."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace

import pytest
import torch
from device import DEVICE

pytest.importorskip("sglang", reason="SGLang's pages")

from multiverse.serving.metrics import Tally
from multiverse_sglang.scheduler.kv_slots import KVSlots
from multiverse_sglang.scheduler.slot_moves import can_move
from multiverse_sglang.scheduler.slots import SlotPool


class Pool:
    """A KV pool whose tokens know who they are: their number is what SGLang has as keys and values."""

    def __init__(self, size: int, page: int) -> None:
        from sglang.srt.mem_cache.allocator import PagedTokenToKVPoolAllocator
        from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool

        self.page, self.size, self.numbers = page, size, 0
        common = {"dtype": torch.float32, "device": DEVICE}
        self.kv = MHATokenToKVPool(size, page, head_num=1, head_dim=2, layer_num=2, enable_memory_saver=False, **common)
        self.allocator = PagedTokenToKVPoolAllocator(size, page, kvcache=self.kv, need_sort=False, **common)
        cache = SimpleNamespace(unlock=lambda _: None, supports_prefix_sharing=lambda: False, evictable_size=lambda: 0)
        scheduler = SimpleNamespace(
            tree_cache=cache,
            token_to_kv_pool_allocator=self.allocator,
            req_to_token_pool=None,
            max_total_num_tokens=size,
            page_size=page,
            enable_overlap=False,
            spec_algorithm=SimpleNamespace(is_none=lambda: True),
        )
        assert can_move(self.kv)
        self.tally = Tally()
        self.slots = SlotPool(scheduler, self.tally)

    def extend(self, kv: KVSlots, count: int) -> list[int]:
        """Compute `count` new tokens, as SGLang does behind a prefix: it goes on in the last page. Their numbers."""
        start, end = torch.tensor([kv.length]), torch.tensor([kv.length + count])
        last = kv.indices[-1:] if kv.length else torch.tensor([-1], device=DEVICE)
        new = self.allocator.alloc_extend(start.to(DEVICE), start, end.to(DEVICE), end, last, count)
        assert new is not None
        numbers = list(range(self.numbers, self.numbers + count))
        self.numbers += count
        for buffer in (*self.kv.k_buffer, *self.kv.v_buffer):
            buffer[new] = torch.tensor(numbers, dtype=torch.float32, device=DEVICE)[:, None, None].expand(-1, 1, 2)
        kv.indices = torch.cat([kv.indices, new])
        return numbers

    def read(self, kv: KVSlots) -> list[int]:
        """The numbers of the tokens of a sequence, the same in all layers."""
        layers = [buffer[kv.indices][:, 0, 0].tolist() for buffer in (*self.kv.k_buffer, *self.kv.v_buffer)]
        assert all(layer == layers[0] for layer in layers)
        return [int(number) for number in layers[0]]

    def check(self, *live: KVSlots) -> None:
        """Sequences consist of whole pages in order, and each page has one owner."""
        pages = self.allocator.get_all_free_pages().tolist()
        for kv in {id(kv): kv for kv in live}.values():
            index = torch.arange(kv.length, device=DEVICE)
            assert (kv.indices % self.page == index % self.page).all()
            assert (kv.indices // self.page == (kv.indices // self.page)[index // self.page * self.page]).all()
            pages += (kv.indices[kv.owned_from :] // self.page).unique().tolist()
        assert sorted(pages) == list(range(1, self.size // self.page + 1))


def grow(pool: Pool, rng: Random, kv: KVSlots, above: list[KVSlots], depth: int) -> list[int]:
    """Let a sequence be extended, fork, join and be extended again; its own new tokens, in document order."""
    own = pool.extend(kv, rng.randint(1, 40))
    for _ in range(rng.randint(0, 2) if depth else 0):
        branches = [pool.slots.share(kv) for _ in range(rng.randint(2, 4))]
        for branch in branches:
            pool.slots.unshare(branch)
        before = pool.read(kv)
        pool.slots.moves.run()
        contents = [grow(pool, rng, branch, [*above, kv, *branches], depth - 1) for branch in branches]
        for branch, content in zip(branches, contents, strict=True):
            assert sorted(pool.read(branch)) == sorted(before + content)
            assert pool.read(branch)[: len(before)] == before
        pool.check(*above, kv, *branches)
        free = pool.allocator.available_size()
        joined = pool.slots.splice(kv, branches)
        kv.indices, kv.owned_from = joined.indices, joined.owned_from
        assert pool.allocator.available_size() >= free
        own += [number for content in contents for number in content]
        assert pool.read(kv)[: len(before)] == before
        assert sorted(pool.read(kv)) == sorted({*before, *own})
        pool.check(*above, kv)
        own += pool.extend(kv, rng.randint(1, 20))
    return own


@pytest.mark.parametrize("page", [2, 16, 64])
def test_what_branches_computed_is_what_their_parent_holds_after_a_join(page: int) -> None:
    for seed in range(12):
        pool = Pool(300 * 64, page)
        root = KVSlots(torch.empty(0, dtype=torch.int64, device=DEVICE), 0)
        own = grow(pool, Random(seed), root, [], 2)
        assert sorted(pool.read(root)) == own == list(range(pool.numbers))
        pool.slots.release(root)
        assert pool.allocator.available_size() == pool.size


def test_a_branch_that_was_never_computed_owns_nothing_and_its_parent_keeps_its_page() -> None:
    pool = Pool(160, 16)
    root = KVSlots(torch.empty(0, dtype=torch.int64, device=DEVICE), 0)
    pool.extend(root, 21)
    branch = pool.slots.share(root)
    assert pool.slots.owned_slots(branch) == 0
    pool.slots.release(branch)
    pool.check(root)
    assert pool.slots.owned_slots(root) == 32


def test_a_fork_copies_less_than_a_page_per_branch_and_a_join_moves_less_than_two() -> None:
    pool = Pool(1600, 16)
    root = KVSlots(torch.empty(0, dtype=torch.int64, device=DEVICE), 0)
    pool.extend(root, 47)
    branches = [pool.slots.share(root) for _ in range(4)]
    for branch in branches:
        pool.slots.unshare(branch)
    pool.slots.moves.run()
    assert pool.tally.totals["copied_tokens"] == 4 * 15
    for branch in branches:
        pool.extend(branch, 100)  # one token in the copied page, six whole pages, three tokens behind them
    joined = pool.slots.splice(root, branches)
    assert pool.tally.totals["moved_tokens"] == 4 * (1 + 3)
    assert joined.length == 47 + 400
    pool.check(joined)
