"""What the adapter believes, against what SGLang says (invariant I8). Reads everything, changes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch

from multiverse.serving.integrity import leftovers, ownership, repeated, strangers
from multiverse_sglang.host import Scheduler
from multiverse_sglang.scheduler.batches import Batches
from multiverse_sglang.scheduler.retained import RetainedKV
from multiverse_sglang.scheduler.slots import SlotPool
from multiverse_sglang.scheduler.tree import member_with
from multiverse_sglang.scheduler.trees import Trees
from multiverse_sglang.scheduler.waiting_queue import tree_of


class Books:
    """Who owns what. Problems are told in a sentence each."""

    def __init__(
        self, scheduler: Scheduler, trees: Trees, batches: Batches, pool: SlotPool, retained: RetainedKV
    ) -> None:
        self._scheduler, self._trees, self._batches = scheduler, trees, batches
        self._pool, self._retained = pool, retained

    def parked_slots(self) -> int:
        """Slots that strands own outside of SGLang's batches, for its leak checks."""
        total = 0
        for tree in self._trees.by_rid.values():
            for member in tree.members.values():
                if member.held_since is not None and member.run is not None:
                    total += self._pool.private_slots(member.run)
                elif (slots := member.parked_slots) is not None:
                    total += self._pool.owned_slots(slots)
        return total

    def retained_slots(self) -> int:
        """Slots that states of programs own, for the same."""
        return self._retained.owned_slots()

    def problems_at_rest(self) -> list[str]:
        """What is left though SGLang has nothing to do. States of programs may keep what they say."""
        pool, trees = self._pool, self._trees
        protected = pool.cache.protected_size()
        left = {
            "trees": len(trees.by_rid),
            "trees without KV": len(trees.preempted),
            "retracted trees": len(trees.retracted),
            "failing trees": len(trees.failing),
            "pages to be copied": pool.moves.pending,
            "rows": pool.rows.size - pool.rows.available_size(),
            "slots": pool.total - pool.free_slots() - protected - self._retained.owned_slots(),
            "tokens locked in the radix tree": 0 if self._retained else protected,
        }
        return [*leftovers(left), *self._wrong_owners()]

    def problems_while_running(self) -> list[str]:
        """What does not fit, between two steps."""
        scheduler = self._scheduler
        waiting = scheduler.waiting_queue
        known = {id(request): request for request in (*waiting, *self._batches.present())}.values()
        trees = [tree for tree in self._trees if tree not in self._trees.retracted]
        members = [member for tree in trees for member in tree.members.values()]
        ours = {member.run.rid for member in members if member.run is not None}
        stale = {r.rid for r in known if tree_of(r) is not None and not r.finished() and member_with(r).run is not r}
        awake = [tree for tree in trees if tree not in self._trees.preempted]
        idle = {tree.client.rid for tree in awake if all(member.run is None for member in tree.members.values())}
        lost, sizes = scheduler.invariant_checker._check_full_pool(
            scheduler.pool_stats_observer.get_pool_stats(), scheduler.invariant_checker._get_total_uncached_sizes()[0]
        )
        return [
            *strangers("runs", ours, {request.rid for request in known}),
            *strangers("runs of SGLang that compute no strand", stale, set()),
            *strangers("trees that nothing is under way for", idle, set()),
            *strangers("held branches", self._held(), set()),
            *repeated("SGLang's queue", (request.rid for request in waiting)),
            *([f"slots do not add up: {sizes}"] if lost else []),
            *self._wrong_owners(),
        ]

    def _wrong_owners(self) -> list[str]:
        """Pages with two owners, or with one though they are free."""
        owners: defaultdict[int, list[str]] = defaultdict(list)
        for name, slots in self._owned():
            for page in {slot // self._pool.page_size for slot in slots.tolist()}:
                owners[page].append(name)
        pages = self._pool.allocator.get_all_free_pages()
        free = set() if pages is None else set(pages.tolist())
        return ownership("page", owners, {page: page not in free for page in owners})

    def _owned(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Who owns which slots outside of the radix tree: requests in batches, strands that are in none, states."""
        table = self._pool.rows.req_to_token
        for request in {id(request): request for request in self._batches.present()}.values():
            kv = request.kv
            if kv.holds_kv:
                yield request.rid, table[kv.req_pool_idx, kv.cache_protected_len : kv.kv_allocated_len]
        for member in self._trees.members():
            if member.parked_slots is not None:
                yield f"{member.tree.client.rid}#{member.strand.key}", member.parked_slots.owned
        for state, slots in self._retained:
            yield state, slots.owned

    def _held(self) -> set[str]:
        """Branches that are said to be held, and are not: they have nothing that could decode, or they do decode."""
        decoding = set(map(id, self._scheduler.running_batch.reqs))
        return {
            f"{member.tree.client.rid}#{member.strand.key}"
            for member in self._trees.held()
            if member.run is None or not member.run.kv.holds_kv or id(member.run) in decoding
        }
