"""Runs: the SGLang requests that compute strands, one after the other per strand; no client ever sees them.

A run is an ordinary request whose prefix the strand has already: SGLang admits it, gives it a row, extends it by what
has no KV yet, and decodes. When its strand forks, closes or is known already, the run ends: its row is read and given
back, and SGLang, for which it is a finished request, drops it from its batches and ignores what is still in flight.
So KV has one owner at any time (I1): the run while it is in a batch, else its member.
"""

from __future__ import annotations

import copy
from typing import Any

from sglang.srt.managers.schedule_batch import FINISH_ABORT

from multiverse.decoding.strand import derive_seed
from multiverse_sglang.channels import MEMBER
from multiverse_sglang.host import RadixCache, Request, SamplingParams, Scheduler
from multiverse_sglang.sampling import in_branches
from multiverse_sglang.scheduler.kv_slots import KVSlots
from multiverse_sglang.scheduler.prompt_logprobs import ask
from multiverse_sglang.scheduler.requests import WatchedRun
from multiverse_sglang.scheduler.slots import SlotPool
from multiverse_sglang.scheduler.strict import StrictTags
from multiverse_sglang.scheduler.tree import Member, member_with
from multiverse_sglang.scheduler.waiting_queue import WaitingQueue


class Runs:
    """Queues runs (`enqueue`) and takes them out again (`end`); gives up what members have computed (`release`)."""

    def __init__(self, scheduler: Scheduler, pool: SlotPool, queue: WaitingQueue) -> None:
        self._scheduler, self._pool, self._queue = scheduler, pool, queue

    def enqueue(self, member: Member) -> None:
        """Let SGLang compute what `member` has no KV of, and sample behind it if its strand is open."""
        assert member.run is None, "a strand is computed by one run at a time"
        assert member.computed < len(member.tokens), "a run computes something"
        run = member.run = self._make(member)
        self._queue.enqueue(run)
        run.time_stats.set_wait_queue_entry_time()
        run.time_stats.forward_entry_time = member.tree.client.time_stats.forward_entry_time  # timeouts are of requests

    def _make(self, member: Member) -> Request:
        client: Any = member.tree.client
        name = ".".join(map(str, member.strand.key))
        run = WatchedRun(
            f"{client.rid}#{name}",
            "",
            member.tokens[:],
            self._parameters(member),
            return_logprob=client.return_logprob,
            top_logprobs_num=client.logprob.top_logprobs_num,
            token_ids_logprob=client.logprob.token_ids_logprob,
            custom_logit_processor=client.custom_logit_processor,
            eos_token_ids=client.eos_token_ids,
            vocab_size=client.vocab_size,
            priority=client.priority,
        )
        run.extra_key, run.cache_salt, run.lora_id = client.extra_key, client.cache_salt, client.lora_id
        run.tokenizer = client.tokenizer
        run.arrival_processed_tokens = client.arrival_processed_tokens
        run.logprob_start_len = -1
        if client.return_logprob:
            ask(member, run)
        run.temp_scaled_logprobs = client.temp_scaled_logprobs
        run.top_p_normalized_logprobs = client.top_p_normalized_logprobs
        if member.tree.options.structure == "strict" and not member.draining:
            run.grammar = StrictTags(member.tree, member.strand)
        run.skip_radix_cache_insert = client.skip_radix_cache_insert or member.slots is not None
        setattr(run, MEMBER, member)
        made: Request = run
        return made

    def _parameters(self, member: Member) -> SamplingParams:
        """Its own sampling parameters. `max_new_tokens` is what SGLang reserves, no limit: the controller counts."""
        parameters = copy.copy(member.tree.client.sampling_params)
        if member.strand.parent is not None:
            parameters = in_branches(parameters, member.tree.options)
        parameters.stop_strs = []
        generated = len(member.tokens) - len(member.tree.controller.prompt.ids)
        parameters.min_new_tokens = 0 if member.draining else max(0, parameters.min_new_tokens - max(0, generated))
        parameters.max_new_tokens = 1 if member.draining else _expected_tokens(member)
        if parameters.sampling_seed is not None:
            parameters.sampling_seed = derive_seed(parameters.sampling_seed, member.strand.key)
        return parameters

    def end(self, member: Member) -> None:
        """Take the run of `member` out of SGLang. What it computed stays, as `member.slots`; its row does not."""
        run = member.run
        assert run is not None
        member.run, member.has_result, member.sampled, member.resumes = None, False, range(0), False
        member.note_released()
        member.end_prefill()
        if self._queue.remove(run):
            pass  # it has taken nothing yet
        elif run.kv.holds_kv:
            member.slots = self._take_over(run, member.slots)
        elif member.slots is not None:
            member.slots.drop_owned()
        if self._scheduler.chunked_req is run:
            self._scheduler.chunked_req = None
        member.tokens.extend(member.strand.tokens[member.tokens_submitted :])
        member.tokens_submitted = len(member.strand.tokens)
        run.finished_reason, run.finished_output = FINISH_ABORT("taken over by its strand"), True

    def _take_over(self, run: Request, before: KVSlots | None) -> KVSlots:
        """What `run`, which began with the slots `before`, has computed; with the lock that the strand had before."""
        lock = run.lock if before is None else before.lock
        if before is not None:
            self._pool.cache.unlock(run.lock)
        slots = self._pool.take_over(run, min(run.kv.kv_committed_len, run.seqlen), lock)
        run.lock = None
        return slots

    def release(self, member: Member) -> int:
        """Give up `member` with all KV that it owns, and say how many tokens that are."""
        if member.run is not None:
            self.end(member)
        member.end_prefill()
        slots, member.slots = member.slots, None
        if slots is None:
            return 0
        self._pool.release(slots)
        return len(slots.owned)


def _expected_tokens(member: Member) -> int:
    """An equal share, per open sibling, of the tokens that the request may still generate."""
    ledger, parent = member.tree.controller.ledger, member.strand.parent
    siblings = 1 if parent is None else max(1, parent.open_children)
    return max(2, ledger.left // siblings)


def orphan(run: Request) -> None:
    """Leave a run to SGLang alone, which ends it with its next token. What its strand holds stays with that."""
    member_with(run).run = None
    setattr(run, MEMBER, None)
    run.skip_radix_cache_insert, run.finished_output = True, True
    run.to_finish = FINISH_ABORT("its strand failed")


def begin_behind(cache: RadixCache, run: Any, slots: KVSlots) -> bool:
    """What SGLang's prefix match would have set, had it found `slots`. Returns `True`."""
    run.refresh_fill_ids()
    run.prefix_len = run.num_matched_prefix_tokens = run.already_computed = slots.length
    run.last_node = run.last_host_node = run.best_match_node = cache.root_node_handle(run.extra_key)
    run.host_hit_length = run.swa_host_hit_length = run.mamba_host_hit_length = 0
    run.kv.cache_protected_len = slots.owned_from
    return True
