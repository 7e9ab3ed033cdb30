"""The adapter's books beside vLLM's (invariant I8): who is where, and to whom each KV block belongs."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from multiverse.serving.integrity import leftovers, ownership, repeated, strangers


def problems(scheduler: Any) -> list[str]:
    """What does not agree, at any moment at which vLLM is not within the scheduler. Looks at every block."""
    queued = [
        request.request_id
        for queue in (scheduler.running, scheduler.waiting, scheduler.kv_holding_waiting)
        for request in queue
    ]
    requests, tables = set(scheduler.requests), scheduler._table.manager.req_to_blocks
    return [
        *strangers("members", set(scheduler._members), requests),
        *strangers("queued requests", set(queued), requests),
        *strangers("requests with KV blocks", set(tables), requests),
        *strangers("members that nothing goes on with", _idle(scheduler), set(queued)),
        *repeated("the queues", queued),
        *ownership("block", _owners(scheduler), _references(scheduler)),
        *remains(scheduler),
    ]


def remains(scheduler: Any) -> list[str]:
    """What is left of anything, if no request is there; cheap enough for every time that the engine comes to rest."""
    if scheduler.requests:
        return []
    trees = ("_structured", "_marked", "_exiles", "_preempted", "_turned", "_moves")
    left = {name.strip("_"): len(getattr(scheduler, name)) for name in ("_members", *trees)}
    return leftovers({"blocks": scheduler._table.total() - scheduler._table.free(), **left})


def _idle(scheduler: Any) -> set[str]:
    """Members that are neither parked nor of a tree that waits for memory; vLLM has to have them in a queue."""
    return {
        name
        for name, member in scheduler._members.items()
        if not member.parked and id(member.tree) not in scheduler._exiles
    }


def _owners(scheduler: Any) -> dict[int, list[str]]:
    """By block, who has it, once per reference."""
    table, owners = scheduler._table, defaultdict(list)
    for request, blocks in table.manager.req_to_blocks.items():
        for block in blocks:
            owners[block.block_id].append(request)
    for pair in table.manager._pending_cow_copies:
        for block in pair:
            owners[block.block_id].append("a copy to be made")
    for _, blocks in scheduler.deferred_frees:
        for block in blocks:
            owners[block.block_id].append("vLLM, which frees it later")
    owners.pop(table.pool.null_block.block_id, None)
    return owners


def _references(scheduler: Any) -> dict[int, int]:
    """By block that is in use, its references. A block that none refers to must be free, and the other way round."""
    pool = scheduler._table.pool
    return {block.block_id: block.ref_cnt for block in pool.blocks if block.ref_cnt and not block.is_null}
