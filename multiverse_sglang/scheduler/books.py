"""What the adapter believes, against what SGLang says (invariant I8). Reads everything, changes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from multiverse.serving.integrity import leftovers, ownership, repeated, strangers
from multiverse_sglang.channels import MEMBER
from multiverse_sglang.scheduler.tree import Held, Member
from multiverse_sglang.scheduler.waiting_queue import tree_of

if TYPE_CHECKING:
    from multiverse_sglang.scheduler.upkeep import Upkeep


def problems_at_rest(conductor: Upkeep) -> list[str]:
    """What is left though SGLang has nothing to do: a sentence each. States of programs may keep what they say."""
    scheduler, pool, kept = conductor.scheduler, conductor.pool, conductor.states.kept
    protected = scheduler.tree_cache.protected_size()
    left = {
        "trees": len(conductor.trees),
        "trees without KV": len(conductor.exiles),
        "retracted trees": len(conductor.retracted),
        "failing trees": len(conductor.failing),
        "pages to be copied": pool.pending,
        "rows": pool.rows.size - pool.rows.available_size(),
        "slots": pool.total - pool.free() - protected - conductor.states.tokens,
        "tokens locked in the radix tree": 0 if kept else protected,
    }
    return [*leftovers(left), *_wrong_owners(conductor)]


def problems_while_running(conductor: Upkeep) -> list[str]:
    """What does not fit, between two steps: a sentence each."""
    scheduler = conductor.scheduler
    waiting = scheduler.waiting_queue
    known = {id(request): request for request in (*waiting, *_in_batches(scheduler))}.values()
    trees = [tree for tree in conductor.trees.values() if tree not in conductor.retracted]
    members = [member for tree in trees for member in tree.members.values()]
    ours = {member.run.rid for member in members if member.run is not None}
    stale = {r.rid for r in known if tree_of(r) is not None and not r.finished() and _member(r).run is not r}
    idle = [
        tree.client.rid
        for tree in trees
        if tree not in conductor.exiles and not any(member.run is not None for member in tree.members.values())
    ]
    lost, sizes = scheduler.invariant_checker._check_full_pool(
        scheduler.pool_stats_observer.get_pool_stats(), scheduler.invariant_checker._get_total_uncached_sizes()[0]
    )
    return [
        *strangers("runs", ours, {request.rid for request in known}),
        *strangers("runs of SGLang that compute no strand", stale, set()),
        *strangers("trees that nothing is under way for", set(idle), set()),
        *repeated("SGLang's queue", (request.rid for request in waiting)),
        *([f"slots do not add up: {sizes}"] if lost else []),
        *_wrong_owners(conductor),
    ]


def _wrong_owners(conductor: Upkeep) -> list[str]:
    """Pages with two owners, or with one though they are free."""
    pool = conductor.pool
    owners: defaultdict[int, list[str]] = defaultdict(list)
    for name, slots in _owned(conductor):
        for page in {slot // pool.page for slot in slots}:
            owners[page].append(name)
    pages = pool.allocator.get_all_free_pages()
    free = set() if pages is None else set(pages.tolist())
    return ownership("page", owners, {page: page not in free for page in owners})


def _owned(conductor: Upkeep) -> Iterator[tuple[str, list[int]]]:
    """Who owns which slots outside of the radix tree: requests in batches, strands that are in none, states."""
    table = conductor.pool.rows.req_to_token
    for request in {id(request): request for request in _in_batches(conductor.scheduler)}.values():
        kv = request.kv
        if kv.holds_kv:
            yield request.rid, table[kv.req_pool_idx, kv.cache_protected_len : kv.kv_allocated_len].tolist()
    for tree in conductor.trees.values():
        for member in tree.members.values():
            if member.held is not None and not (member.run is not None and member.run.kv.holds_kv):
                yield f"{tree.client.rid}#{member.strand.key}", _own(member.held)
    for name, kept in conductor.states.kept.items():
        yield name, _own(kept.held)


def _own(held: Held) -> list[int]:
    found: list[int] = held.slots[held.own :].tolist()
    return found


def _in_batches(scheduler: Any) -> list[Any]:
    """The requests in SGLang's batches, those whose result is under way included; some of them more than once."""
    results = [batch for batch, _ in getattr(scheduler, "result_queue", ())]
    batches = [scheduler.running_batch, scheduler.last_batch, *results]
    chunked = [] if scheduler.chunked_req is None else [scheduler.chunked_req]
    return [*(request for batch in batches if batch is not None for request in batch.reqs), *chunked]


def _member(request: Any) -> Member:
    found: Member = getattr(request, MEMBER)
    return found
