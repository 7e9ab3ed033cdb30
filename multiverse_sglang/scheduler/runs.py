"""Runs: the SGLang requests that compute strands, one after the other per strand; no client ever sees them.

A run is an ordinary request whose prefix the strand already holds: SGLang admits it, gives it a row, extends it by what
has no KV yet, and decodes. When its strand forks, closes or is known already, the run ends: its row is read and given
back, and SGLang, for which it is a finished request, drops it from its batches and ignores what is still in flight.
"""

from __future__ import annotations

import copy
from typing import Any

from sglang.srt.managers.schedule_batch import FINISH_ABORT, Req

from multiverse.decoding.strand import derive_seed
from multiverse_sglang.channels import MEMBER, ORPHAN
from multiverse_sglang.sampling import in_branches
from multiverse_sglang.scheduler.prompt_logprobs import ask
from multiverse_sglang.scheduler.slots import SlotPool
from multiverse_sglang.scheduler.strict import StrictTags
from multiverse_sglang.scheduler.tree import Held, Member
from multiverse_sglang.scheduler.waiting_queue import tree_of


class Runs:
    """Queues runs and takes them out again."""

    def __init__(self, scheduler: Any, pool: SlotPool) -> None:
        self._scheduler = scheduler
        self._pool = pool

    def queue(self, member: Member) -> None:
        """Let SGLang compute what `member` has no KV of, and sample behind it if its strand is open."""
        run = member.run = self._make(member)
        self._scheduler.waiting_queue.append(run)
        run.time_stats.set_wait_queue_entry_time()
        run.time_stats.forward_entry_time = member.tree.client.time_stats.forward_entry_time  # timeouts are of requests

    def _make(self, member: Member) -> Any:
        client = member.tree.client
        name = ".".join(map(str, member.strand.key))
        run = Req(
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
        run.skip_radix_cache_insert = client.skip_radix_cache_insert or member.held is not None
        setattr(run, MEMBER, member)
        return run

    def _parameters(self, member: Member) -> Any:
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
        """Take the run of `member` out of SGLang. What it computed of the strand stays, its row does not."""
        run, held = member.run, member.held
        member.run, member.arrived, member.sampled = None, False, None
        member.end_passage()
        if run in self._scheduler.waiting_queue:
            self._scheduler.waiting_queue.remove(run)
        elif run.kv.holds_kv:
            lock = run.lock if held is None else held.lock
            if held is not None:
                self._pool.cache.unlock(run.lock)
            length = min(run.kv.kv_committed_len, run.seqlen)
            member.held = self._pool.take(run, length, lock)
            run.lock = None
        elif held is not None:
            held.disown()
        if self._scheduler.chunked_req is run:
            self._scheduler.chunked_req = None
        member.tokens.extend(member.strand.tokens[member.tokens_submitted :])
        member.tokens_submitted = len(member.strand.tokens)
        run.finished_reason, run.finished_output = FINISH_ABORT("taken over by its strand"), True

    def release(self, member: Member) -> int:
        """Give up `member` with all KV that it owns, and say how many tokens that are."""
        if member.run is not None:
            self.end(member)
        member.end_passage()
        if member.held is None:
            return 0
        owned = len(member.held.slots) - member.held.own
        self._pool.release(member.held)
        member.held = None
        return owned


def _expected_tokens(member: Member) -> int:
    """An equal share, per open sibling, of the tokens that the request may still generate."""
    ledger, parent = member.tree.controller.ledger, member.strand.parent
    siblings = 1 if parent is None else max(1, parent.open_children)
    return max(2, (ledger.limit - ledger.used - ledger.reserved) // siblings)


def is_run(request: Any) -> bool:
    """Whether `request` computes something for a strand, or did: no client hears of it."""
    return tree_of(request) is not None or getattr(request, ORPHAN, False)


def orphan(run: Any) -> None:
    """Leave a run to SGLang alone, which ends it with its next token. What its strand holds stays with that."""
    getattr(run, MEMBER).run = None
    setattr(run, MEMBER, None)
    setattr(run, ORPHAN, True)
    run.skip_radix_cache_insert, run.to_finish = True, FINISH_ABORT("its strand failed")


def begin_where_held(cache: Any, run: Any, held: Held) -> bool:
    """What SGLang's prefix match would have set, had it found the slots of `held`. Returns `True`."""
    run.refresh_fill_ids()
    run.prefix_len = run.num_matched_prefix_tokens = run.already_computed = len(held.slots)
    run.last_node = run.last_host_node = run.best_match_node = cache.root_node_handle(run.extra_key)
    run.host_hit_length = run.swa_host_hit_length = run.mamba_host_hit_length = 0
    run.kv.cache_protected_len = held.own
    return True
