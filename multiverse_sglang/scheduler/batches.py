"""SGLang's batches: who decodes in the next step, and the runs that are held out of them.

A held run is in no batch, and keeps its row and its KV: SGLang's next token for it is the one that it would have been.
`hold` and `release` are a pair; a run that ends while it is held needs no release.
"""

from __future__ import annotations

from collections.abc import Sequence

from multiverse_sglang.host import Batch, Request, Scheduler
from multiverse_sglang.scheduler.tree import Member
from multiverse_sglang.scheduler.trees import Trees


class Batches:
    """The only one that touches the batches of `scheduler`."""

    def __init__(self, scheduler: Scheduler, trees: Trees) -> None:
        self._scheduler, self._trees = scheduler, trees

    def decoding(self) -> list[Request]:
        """The requests that will decode in the next step; those of which it is the first decode step included."""
        chunked = self._scheduler.chunked_req
        return [r for batch in self._joining() for r in batch.reqs if not r.finished() and r is not chunked]

    def _joining(self) -> list[Batch]:
        """The batches of which SGLang makes the one that decodes."""
        running, last = self._scheduler.running_batch, self._scheduler.last_batch
        fresh = last is not None and last is not running and last.forward_mode.is_extend()
        return [running, last] if fresh and last is not None else [running]

    def present(self) -> list[Request]:
        """The requests in batches, those whose result is under way and those that are held out of them included; some
        more than once."""
        scheduler, held = self._scheduler, self._trees.held()
        batches = [scheduler.running_batch, scheduler.last_batch, *self._under_way()]
        chunked = [] if scheduler.chunked_req is None else [scheduler.chunked_req]
        held_runs = [member.run for member in held if member.run is not None]
        return [*(r for batch in batches if batch is not None for r in batch.reqs), *chunked, *held_runs]

    def is_idle(self) -> bool:
        """Whether nothing is under way, so that the time that passes is no step's."""
        return self._scheduler.last_batch is None and not self._under_way()

    def _under_way(self) -> list[Batch]:
        return [batch for batch, _ in getattr(self._scheduler, "result_queue", ())]

    def hold(self, members: Sequence[Member], step: int) -> None:
        """Take the runs of `members`, which decode, out, from `step` on. A result that is under way still comes."""
        runs = {id(member.run) for member in members}
        for batch in self._joining():
            kept = [row for row, request in enumerate(batch.reqs) if id(request) not in runs]
            if len(kept) < len(batch.reqs):
                batch.filter_batch(keep_indices=kept)
        for member in members:
            member.note_held(step)

    def release(self, members: Sequence[Member]) -> None:
        """Let runs that are held decode in the next step; not those whose result is under way, which has to be known
        before."""
        scheduler = self._scheduler
        awaited = {id(request) for batch in self._under_way() for request in batch.reqs}
        back = [(member, run) for member in members if (run := member.run) is not None and id(run) not in awaited]
        if not back:
            return
        runs = [run for _, run in back]
        assert all(run.kv.kv_committed_len == run.seqlen - 1 for run in runs), "all but the last token has its KV"
        batch = scheduler._build_hisparse_decode_batch(runs)
        batch.multimodal_inputs = [None] * len(runs)
        if batch.return_logprob:
            batch.token_ids_logprobs = [run.logprob.token_ids_logprob for run in runs]
        running = scheduler.running_batch
        if running.is_empty():
            batch.batch_is_full, scheduler.running_batch = running.batch_is_full, batch
        else:
            running.merge_batch(batch)
        for member, _ in back:
            member.note_released()
            member.resumes = True
