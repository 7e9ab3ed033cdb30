"""Branches as vLLM requests: started from their parent's KV and joined to it again. All of it happens between steps."""

from __future__ import annotations

import time

from vllm.v1.request import Request, RequestStatus

from multiverse.decoding.replay import Part
from multiverse.decoding.strand import Status, Strand
from multiverse.serving.reconcile import reconcile
from multiverse_vllm.sampling import in_branches
from multiverse_vllm.scheduler.blocks import UNCACHED
from multiverse_vllm.scheduler.demand import Demand
from multiverse_vllm.scheduler.parameters import adapt_sampling
from multiverse_vllm.scheduler.prefix_cache import PrefixCache
from multiverse_vllm.scheduler.state import State
from multiverse_vllm.scheduler.tree import Head, Member, RequestTree

MOST_LACKING = 8
"""So many tokens at most each branch computes for itself: goal-close and separator, and what a dialect may add."""


class Forks:
    """Maps and reduces; the host of `multiverse.serving.reconcile`.

    Args:
        splices: whether the dialect joins KV by splicing; else branches are computed again behind their parent.
    """

    def __init__(self, state: State, cache: PrefixCache, demand: Demand, splices: bool) -> None:
        self._host, self._trees, self._queue, self._table = state.host, state.trees, state.queue, state.table
        self._tally, self._cache, self._demand, self._splices = state.tally, cache, demand, splices

    def start_root(self, root: Member) -> None:
        """Queue a root without KV: with its first part, which is causal, or behind its last join that is cached."""
        request, tree = root.request, root.tree
        self._trees.preempted.pop(id(tree), None)
        self._queue.drop_in_flight(root)
        request._block_hasher, request.block_hashes, request.num_computed_tokens = tree.block_hasher, [], 0
        part = self._cache.resume(root) if tree.scores is None else None
        if part is None:
            request._block_hasher, request.block_hashes = tree.block_hasher, []
            request._all_token_ids[:] = root.parts()[0].tokens
            request.update_block_hashes()
        else:
            self._tally.count("cached_tokens", request.num_computed_tokens)
            if request.prefill_stats and not tree.replays:
                request.prefill_stats.set(len(tree.controller.prompt.ids), request.num_computed_tokens, 0)
        root.advance_to(part or 0)
        self._submit(root)

    def _submit(self, member: Member) -> None:
        """Queue a request with all its tokens as prompt, or park it if they are computed and none is to be sampled."""
        request = member.request
        if member.draining and request.num_computed_tokens == request.num_tokens:
            self.park(member)
            return
        tokens, prompt = list(request.all_token_ids), member.prompt_length()
        request.prompt_token_ids = tokens[:prompt] if self._host.use_v2_model_runner else tokens
        request.num_prompt_tokens = prompt
        request._output_token_ids[:] = tokens[prompt:]
        adapt_sampling(member)
        if request.num_computed_tokens:
            self._table.manager.num_cached_block.setdefault(request.request_id, 0)
        self._queue.enqueue(member)

    def start_draining(self, member: Member) -> None:
        """A running strand has forked or closed: its last tokens are computed without sampling behind them."""
        member.drain_started_at = time.monotonic()
        self._queue.remove(member)
        member.request.num_computed_tokens = min(member.request.num_computed_tokens, member.valid_kv_length)
        member.drain()
        self._submit(member)
        if member.strand.status is Status.PARKED:
            self._trees.note_change(member.tree)

    def park(self, member: Member) -> None:
        """All KV of a strand that has forked or closed is there, or will be before any later step reads it."""
        self._queue.park(member)
        member.draining = False
        if member.strand.status is Status.CLOSED:
            member.tree.closed_at[member.strand.key] = time.monotonic()
        self._trees.note_change(member.tree)

    # --- map and reduce ----------------------------------------------------------------------------------------

    def reconcile(self, tree: RequestTree) -> None:
        """Bring what vLLM holds to what the controller wants: start branches, join closed ones."""
        reconcile(tree.members, self)

    def is_complete(self, parent: Member) -> bool:
        """A parked strand has all its KV; the few last tokens of one that drains each branch computes for itself, too.

        So a fork takes no step of its own. It costs a copy of these tokens per branch, and possibly a block.
        """
        lacks = parent.request.num_tokens - parent.request.num_computed_tokens
        return parent.parked or (lacks <= MOST_LACKING and parent.tree.scores is None and self._demand.is_ample())

    def start(self, parent: Member, branch: Strand) -> None:
        """Map: make a request of a branch, whose KV begins with its parent's; later, if there is no room for it."""
        tree = parent.tree
        if not self._demand.leaves_room_for(parent, branch):
            self._trees.note_change(tree)
            return
        shared, length = parent.request.num_computed_tokens, parent.request.num_tokens
        head = Head(length, parent.delta) if shared < length else None
        member = Member(tree, branch, request=self._request(parent, branch), shared=shared, head=head)
        self._trees.add(member)
        self._table.share(parent.request.request_id, member.request.request_id, shared)
        self._tally.count("copied_tokens", shared % self._table.size)
        member.advance_to(0)
        member.request._all_token_ids += member.parts()[0].tokens
        tree.note_start(parent, branch, self._tally)
        self._submit(member)

    def _request(self, parent: Member, branch: Strand) -> Request:
        origin = parent.request
        parameters = in_branches(parent.tree.sampling, parent.tree.options)
        parameters.max_tokens = self._host.max_model_len  # the controller counts
        request = Request(
            parent.tree.name_of(branch),
            list(origin.all_token_ids),
            parameters,
            None,
            client_index=origin.client_index,
            arrival_time=origin.arrival_time,
            lora_request=origin.lora_request,
            cache_salt=origin.cache_salt,
            priority=origin.priority,
        )
        request.prefill_stats, request.num_computed_tokens = None, origin.num_computed_tokens
        return request

    def join(self, parent: Member, branches: list[Member], part: Part) -> None:
        """Reduce: hand the branches' KV to the parent and let it go on with `part`."""
        request, length = parent.request, parent.request.num_tokens
        if self._splices:
            ends = [(branch.request.request_id, branch.request.num_tokens) for branch in branches]
            moved = self._table.splice(request.request_id, length, ends)
            request.num_computed_tokens = length + sum(end - length for _, end in ends)
            self._tally.count("spliced_tokens", request.num_computed_tokens - length)
            self._tally.count("moved_tokens", moved)
        for branch in branches:
            request._all_token_ids += branch.request._all_token_ids[length:]
            self._dismiss(branch)
        request._all_token_ids += part.tokens
        parent.advance_to(parent.part + 1)
        if self._splices:
            self._publish(parent, length)
        else:
            request.update_block_hashes()  # of ordinary text at ordinary positions
        self._queue.unpark(parent)
        self._submit(parent)
        self._tally.count("joins")
        closed = max(parent.tree.closed_at[branch.strand.key] for branch in branches)
        self._tally.observe("join_seconds", time.monotonic() - closed)

    def _publish(self, parent: Member, length: int) -> None:
        """Key the joined blocks of a root for the prefix cache; those of a branch are never in it."""
        request = parent.request
        keys = self._cache.keys(parent) if parent.strand.parent is None else None
        request._block_hasher = keys
        if keys is None:
            self._table.manager.num_cached_block[request.request_id] = UNCACHED
        else:
            del request.block_hashes[length // self._table.size :]
            request.update_block_hashes()

    def _dismiss(self, branch: Member) -> None:
        """Free a branch whose KV its parent has taken over."""
        self._host.kv_cache_manager.free(branch.request)
        branch.request.status = RequestStatus.FINISHED_STOPPED
        self._trees.remove(branch)
