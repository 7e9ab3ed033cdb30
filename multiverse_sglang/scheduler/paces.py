"""What SGLang says of how its requests are served and its steps take (`multiverse.serving.admission.paces`).

Its time is that of the first rank (`clock.py`), told at the beginning of each turn of SGLang's event loop: all ranks
decide by the same figures. What a turn did is therefore noted as the next one begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sglang.srt.managers.schedule_batch import FINISH_ABORT

from multiverse.serving.admission import paces
from multiverse.serving.admission.paces import Served
from multiverse.serving.admission.promises import promised
from multiverse.serving.admission.step_time import StepTime
from multiverse.serving.metrics import Tally
from multiverse.serving.options import Options
from multiverse_sglang.host import Batch, Request, Scheduler
from multiverse_sglang.scheduler.admission import field_of
from multiverse_sglang.scheduler.batches import Batches
from multiverse_sglang.scheduler.trees import Trees

_EVERY = 64
"""Turns from one search for requests that SGLang has dropped without a word to the next."""


class Paces(paces.Paces[Request]):
    """The paces of one scheduler.

    Attributes:
        now: when this turn began, in seconds.

    Args:
        step_time: learns from its steps.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        options: Options,
        trees: Trees,
        batches: Batches,
        tally: Tally,
        step_time: StepTime,
    ) -> None:
        super().__init__(step_time, tally)
        self._scheduler, self._options, self._trees, self._batches = scheduler, options, trees, batches
        self.now = 0.0
        self._turns, self._steps_over = 0, list[Batch]()

    def admit(self, request: Request) -> None:
        """A client's request was queued, for the first time or again."""
        if request.rid in self._served or request.finished() or not request.sampling_params.max_new_tokens:
            return
        options = self._options.for_request(field_of(request))
        slo = promised(options.slo, options.tpot_slo_ms, options.ttft_slo_ms)
        self.promise(request.rid, request, slo, request.sampling_params.max_new_tokens, self.now)

    def forget(self) -> None:
        """What was served so far was a rehearsal."""
        for noted in (self._served, self._silent, self._steps_over):
            noted.clear()

    def note_result(self, batch: Batch) -> None:
        """The result of a step is there."""
        self._steps_over.append(batch)

    def begin_turn(self, now: float) -> None:
        """SGLang's event loop begins a turn at `now`; what the one before did is done."""
        self.now, self._turns = now, self._turns + 1
        over, self._steps_over = self._steps_over, []
        if over:
            self.begin(now)
            self.end(now, True, ((tree.client.rid, tree) for tree in self._trees), lambda: _decoded(over))
        elif self._batches.is_idle():
            self.end(now, True, (), lambda: (0, 0))

    # --- what `Paces` asks ---------------------------------------------------------------------------------------

    def said(self, client: Request) -> int:
        return len(client.output_ids)

    def gone(self) -> Iterable[str]:
        if not self._served:
            return ()
        known = self._known() if self._turns % _EVERY == 0 or self._batches.is_idle() else self._served.keys()
        return [name for name, served in self._served.items() if name not in known or _client(served).finished()]

    def _known(self) -> set[str]:
        """The names of all requests that SGLang has, and that we have."""
        waiting = {request.rid for request in self._scheduler.waiting_queue}
        return {tree.client.rid for tree in self._trees} | {r.rid for r in self._batches.present()} | waiting

    def is_whole(self, served: Served[Request]) -> bool:
        reason = _client(served).finished_reason
        return reason is not None and not isinstance(reason, FINISH_ABORT)


def _client(served: Served[Request]) -> Request:
    """The request that is answered: that of its tree, once it is taken apart."""
    tree: Any = served.tree
    found: Request = served.client if tree is None else tree.client
    return found


def _decoded(over: list[Batch]) -> tuple[int, int]:
    """Rows of the step that is over, and the tokens that they attended to."""
    batch = over[0]
    if len(over) > 1 or not batch.forward_mode.is_decode():
        return 0, 0
    return len(batch.reqs), sum([request.seqlen for request in batch.reqs])
