"""Branches as vLLM requests: queued, parked, started from their parent's KV and joined to it again."""

from __future__ import annotations

import time
from typing import Any

from vllm.v1.request import Request, RequestStatus

from multiverse.decoding.replay import Part
from multiverse.decoding.strand import Status, Strand, derive_seed
from multiverse.decoding.strict import StrictStart
from multiverse_vllm.frontend.inputs import in_branches
from multiverse_vllm.scheduler.blocks import UNCACHED
from multiverse_vllm.scheduler.tree import Member, RequestTree
from multiverse_vllm.worker.strict import START


class Forks:
    """The part of the scheduler that maps and reduces. All of it happens between steps."""

    def _begin(self, root: Member) -> None:
        """Queue the root with its first part, which is causal, or behind its last join that is still cached."""
        request = root.request
        self._exiles.pop(id(root.tree), None)
        self._recall(request)
        request._block_hasher, request.block_hashes, request.num_computed_tokens = root.tree.block_hasher, [], 0
        part = self._cache.resume(root) if root.tree.scores is None else None
        if part is None:
            request._block_hasher, request.block_hashes = root.tree.block_hasher, []
            request._all_token_ids[:] = root.parts()[0].tokens
            request.update_block_hashes()
        else:
            self.tally.count("cached_tokens", request.num_computed_tokens)
            if request.prefill_stats and not root.tree.replays:
                request.prefill_stats.set(len(root.tree.controller.prompt.ids), request.num_computed_tokens, 0)
        root.advance_to(part or 0)
        self._enter(root)

    def _enter(self, member: Member) -> None:
        """Queue a request with all its tokens as prompt; the worker meets it anew, whatever it knew.

        If all of them are computed and none is to be sampled, it is parked at once.
        """
        request = member.request
        if member.draining and request.num_computed_tokens == request.num_tokens:
            self._park(member)
            return
        request.status = RequestStatus.WAITING
        tokens, prompt = list(request.all_token_ids), member.prompt_length()
        request.prompt_token_ids = tokens[:prompt] if self.use_v2_model_runner else tokens
        request.num_prompt_tokens = prompt
        request._output_token_ids[:] = tokens[prompt:]
        self._adapt_sampling(member)
        if request.num_computed_tokens:
            self._table.manager.num_cached_block.setdefault(request.request_id, 0)
        self.finished_req_ids.add(request.request_id)
        self._enqueue_waiting_request(request)

    def _adapt_sampling(self, member: Member) -> None:
        """Sampling parameters for a request that is new to the workers, its earlier output having become its prompt."""
        tree, strand, given = member.tree, member.strand, member.tree.sampling
        strict = tree.options.structure == "strict"
        scores = given.prompt_logprobs is not None or given.prompt_logprob_token_ids is not None
        if not strict and given.seed is None and not scores and not given.min_tokens:
            return
        parameters = member.request.sampling_params = member.request.sampling_params.clone()
        if strict:
            outputs = member.request.num_tokens - member.prompt_length()
            start = StrictStart(strand.frame, tree.options.max_branches, tree.options.max_depth, outputs)
            parameters.extra_args = {**(parameters.extra_args or {}), START: start}
        if strand.tokens or member.tree.structured:
            parameters.prompt_logprobs = parameters.prompt_logprob_token_ids = None
            generated = member.prompt_length() - len(tree.controller.prompt.ids)
            parameters.min_tokens = max(0, given.min_tokens - max(0, generated))
        if given.seed is not None:  # the worker's new generator must not draw the same numbers again
            parameters.seed = (
                derive_seed(given.seed, (*strand.key, len(strand.tokens))) if strand.tokens else given.seed
            )

    def _park(self, member: Member) -> None:
        """Let a request keep its KV and wait, unknown to the workers."""
        request = member.request
        self._recall(request)
        request.status = RequestStatus.WAITING
        self.finished_req_ids.add(request.request_id)
        member.draining, member.parked = False, True
        if member.strand.status is Status.CLOSED:
            member.tree.closed_at[member.strand.key] = time.monotonic()
        self._mark(member.tree)

    @staticmethod
    def _recall(request: Request) -> None:
        """Drop what workers may still sample for `request` in steps that are under way (async scheduling).

        The KV they write is wanted: steps run in order, so it is there before any later step reads it.
        """
        request.drop_stale_output = True
        request.num_stale_output_tokens = request.num_in_flight_tokens
        request.num_output_placeholders = 0

    def _turn(self, member: Member) -> None:
        """A strand has forked or closed: its last tokens are computed once more without sampling behind them."""
        if member.request.status != RequestStatus.RUNNING:  # preempted while the tag was on its way
            self._replay(member.tree)
            return
        member.drain_started_at = time.monotonic()
        self.running.remove(member.request)
        self._recall(member.request)
        member.request.num_computed_tokens = min(member.request.num_computed_tokens, member.certain)
        member.draining = True
        self._enter(member)

    def _mark(self, tree: RequestTree) -> None:
        """Note that there may be branches of `tree` to start or to join."""
        self._marked[id(tree)] = tree

    def _reconcile(self, tree: RequestTree) -> None:
        """Bring what vLLM holds to what the controller wants: start branches, join closed ones."""
        for member in list(tree.members.values()):
            if not member.parked or member.strand.key not in tree.members:
                continue
            known = member.parts()
            children = known[member.part].children
            for child in children:
                if child.key not in tree.members and child.status is not Status.WAITING:
                    if self._room_for(member, child):
                        self._start(tree, child, member)
                    else:
                        self._mark(tree)
            branches = [tree.members[child.key] for child in children if child.key in tree.members]
            closed = len(branches) == len(children) and all(branch.done for branch in branches)
            if children and closed and member.part + 1 < len(known):
                self._join(member, branches, known[member.part + 1])

    def _start(self, tree: RequestTree, strand: Strand, parent: Member) -> None:
        """Map: make a request of a branch; its KV begins with its parent's."""
        origin = parent.request
        parameters = in_branches(tree.sampling, tree.options)
        parameters.max_tokens = self.max_model_len  # the controller counts
        child = Request(
            tree.name_of(strand),
            list(origin.all_token_ids),
            parameters,
            None,
            client_index=origin.client_index,
            arrival_time=origin.arrival_time,
            lora_request=origin.lora_request,
            cache_salt=origin.cache_salt,
            priority=origin.priority,
        )
        child.prefill_stats = None
        member = Member(tree, strand, request=child)
        tree.members[strand.key] = self._members[child.request_id] = member
        self.requests[child.request_id] = child  # known before it holds anything, so that a failure takes it along
        child.num_computed_tokens = origin.num_tokens
        self._table.share(origin.request_id, child.request_id, origin.num_tokens)
        self.tally.count("copied_tokens", origin.num_tokens % self._table.size)
        member.advance_to(0)
        child._all_token_ids += member.parts()[0].tokens
        tree.started_at.setdefault(strand.key, time.monotonic())
        self._enter(member)
        if strand.key[-1] == 0:
            self.tally.count("forks")
            if parent.drain_started_at is not None:
                self.tally.observe("fork_seconds", time.monotonic() - parent.drain_started_at)

    def _join(self, parent: Member, branches: list[Member], part: Part) -> None:
        """Reduce: hand the branches' KV to the parent and let it go on with `part`."""
        request, length = parent.request, parent.request.num_tokens
        splice = self._binding.dialect.join == "splice"
        if splice:
            ends = [(branch.request.request_id, branch.request.num_tokens) for branch in branches]
            moves = self._table.splice(request.request_id, length, ends)
            self._moves += moves
            request.num_computed_tokens = length + sum(end - length for _, end in ends)
            self.tally.count("spliced_tokens", request.num_computed_tokens - length)
            self.tally.count("moved_tokens", len(moves))
        for branch in branches:
            request._all_token_ids += branch.request._all_token_ids[length:]
            self._forget(branch)
        request._all_token_ids += part.tokens
        parent.advance_to(parent.part + 1)
        if splice:
            self._publish(parent, length)
        else:
            request.update_block_hashes()  # of ordinary text at ordinary positions
        self._enter(parent)
        self.tally.count("joins")
        closed = max(parent.tree.closed_at[branch.strand.key] for branch in branches)
        self.tally.observe("join_seconds", time.monotonic() - closed)

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

    def _forget(self, member: Member) -> None:
        """Free a branch whose KV its parent has taken over."""
        request = member.request
        self.kv_cache_manager.free(request)
        request.status = RequestStatus.FINISHED_STOPPED
        self.requests.pop(request.request_id)
        self._members.pop(request.request_id)
        member.tree.members.pop(member.strand.key)

    def _leave_queues(self, request: Any) -> None:
        if request in self.running:
            self.running.remove(request)
        self.waiting.remove_requests([request])
        self.kv_holding_waiting.remove_requests([request])
        self.deferred_waiting.discard(request)
