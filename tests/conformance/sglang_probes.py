"""Counts and checks inside SGLang's scheduler, while it runs: the half of its stepper that looks on."""

from __future__ import annotations

import time
from typing import Any

import torch


def check_pages(scheduler: Any) -> None:
    """Whatever a sequence consists of, backends with page tables could read it, and no page has two owners."""
    size, allocator = scheduler.page_size, scheduler.token_to_kv_pool_allocator
    if size == 1:
        return
    batches = [batch for batch in (scheduler.running_batch, scheduler.last_batch) if batch is not None]
    requests = {id(request): request for batch in batches for request in batch.reqs if request.kv.holds_kv}
    rows = scheduler.req_to_token_pool.req_to_token
    found = [
        (rows[request.kv.req_pool_idx, : request.kv.kv_allocated_len].long(), request.kv.cache_protected_len)
        for request in requests.values()
    ]
    members = [m for tree in scheduler.multiverse_conductor.trees for m in tree.members.values()]
    idle = [m.slots for m in members if m.slots is not None and not (m.run is not None and m.run.kv.holds_kv)]
    found += [(slots.indices, slots.owned_from) for slots in idle]
    pages = allocator.get_all_free_pages().tolist()
    for slots, own in found:
        first = slots[::size].repeat_interleave(size)[: len(slots)]
        offsets = torch.arange(len(slots), device=slots.device) % size
        assert (first % size == 0).all()
        assert (slots == first + offsets).all()
        assert own % size == 0 or own == len(slots)
        pages += (slots[own:] // size).unique().tolist()
    assert len(set(pages)) == len(pages), "a page has two owners"


class Probes:
    """Counts what the scheduler computes, and reports the logprobs that the suite compares.

    Attributes:
        scheduled, extends, mixed: tokens that were computed, and forwards by kind.
        answers: by request, what it has got so far.
    """

    scheduler: Any
    answers: dict[str, tuple[list[int], list[float], str | None]]

    def probe(self, raw_logprobs: bool) -> None:
        """Begin to look on."""
        self.scheduled = self.extends = self.mixed = 0
        self.forwards: list[tuple[bool, int, float, float]] = []
        self.reads: list[tuple[int, int, int]] | None = None
        self._count()
        self._check_groups()
        if raw_logprobs:
            self._report_raw_logprobs()

    def _count(self) -> None:
        """Count tokens that are computed or, at the end of a request, were found in the prefix cache as causal ones: at
        page size 1 a few of another prompt nearly always are. Under overlap SGLang computes one token past the end of
        every request, before it knows; that one is not counted."""
        run_batch, process = self.scheduler.run_batch, self.scheduler.process_batch_result

        def counted(batch: Any, *args: Any) -> Any:
            self.extends += batch.forward_mode.is_extend()
            self.mixed += batch.forward_mode.is_mixed()
            extends = batch.forward_mode.is_extend()
            self.scheduled += batch.extend_num_tokens if extends else len(batch.reqs)
            start = time.thread_time()
            result = run_batch(batch, *args)
            self.forwards.append((extends, len(batch.reqs), start, time.thread_time()))
            return result

        def processed(batch: Any, result: Any) -> Any:
            self.scheduled -= sum(request.finished() and request.rid in self.answers for request in batch.reqs)
            drafted = result.accept_lens is not None and batch.forward_mode.is_decode()
            there = [(request, request.kv.kv_committed_len) for request in batch.reqs if drafted]
            found = process(batch, result)
            for (request, before), accepted in zip(there, result.accept_lens.tolist() if drafted else (), strict=True):
                self.scheduled += min(accepted, request.seqlen - before) - 1  # of drafts, what is not dropped counts
            return found

        self.scheduler.run_batch, self.scheduler.process_batch_result = counted, processed

    def _check_groups(self) -> None:
        """Rows begin with the same slots wherever the plugin says so."""
        from multiverse_sglang.channels import GROUPS

        backend, pool = self.scheduler.tp_worker.model_runner.attn_backend, self.scheduler.req_to_token_pool
        prepare = backend.init_forward_metadata

        def prepared(forward: Any) -> None:
            for rows, length in getattr(backend, GROUPS, ()) if forward.forward_mode.is_decode() else ():
                slots = pool.req_to_token[forward.req_pool_indices[list(rows)], :length]
                assert (slots == slots[0]).all(), "rows share less than the plugin says"
            before = getattr(backend, "kv_tokens", 0)
            prepare(forward)
            if self.reads is not None and forward.forward_mode.is_decode():
                lengths = forward.seq_lens.tolist()
                rows = zip(forward.req_pool_indices, lengths, strict=True)
                slots = torch.cat([pool.req_to_token[row, :length] for row, length in rows])
                self.reads.append((backend.kv_tokens - before, len(slots.unique()), sum(lengths)))

        backend.init_forward_metadata = prepared

    def _report_raw_logprobs(self) -> None:
        """SGLang reports the logprobs it sampled from, logit bias included; the rest of the suite compares raw ones."""
        runner = self.scheduler.tp_worker.model_runner
        sample = runner.sample

        def sampled(logits: Any, batch: Any) -> Any:
            raw = logits.next_token_logits.log_softmax(-1)
            tokens = sample(logits, batch)
            if batch.return_logprob:
                logits.next_token_logprobs = raw.gather(1, tokens.long()[:, None])[:, 0]
            return tokens

        runner.sample = sampled

    def on_counters(self) -> dict[str, int]:
        counts = self.scheduler.multiverse_conductor.tally.totals
        scheduled = self.scheduled - counts["cached_tokens"]
        return counts | {"scheduled": scheduled, "extends": self.extends, "mixed": self.mixed}

    def on_forwards(self) -> list[tuple[bool, int, float, float]]:
        """The forwards since it was asked last: is it an extend, of how many requests, CPU seconds of start and end."""
        found, self.forwards = self.forwards, []
        return found

    def on_kv_reads(self) -> list[tuple[int, int, int]]:
        """The decode steps since it was asked last: slots that were read, that there are, and of all rows together."""
        found, self.reads = self.reads or [], []
        return found
