"""The last output of answers that an operator aborts (pause with `abort`): whoever is owed one gets its figures too.

vLLM sends such outputs without asking the scheduler what is in them. A client that went away is owed nothing.
"""

from __future__ import annotations

import functools

from vllm.v1.engine import EngineCoreOutputs, FinishReason
from vllm.v1.engine.core import EngineCoreProc

from multiverse_vllm.scheduler.scheduler import MultiverseScheduler


def install() -> None:
    """Let the scheduler say what is in the last outputs of forked answers."""
    send = EngineCoreProc._send_finish_outputs_to_client

    @functools.wraps(send)
    def send_last(
        self: EngineCoreProc,
        req_ids: list[str],
        client_index: int,
        finish_reason: FinishReason,
        *more: object,
        **named: object,
    ) -> None:
        own = self.scheduler.answers.last_outputs if isinstance(self.scheduler, MultiverseScheduler) else {}
        last = [own.pop(name) for name in req_ids if name in own]
        for output in last:
            output.finish_reason = finish_reason
        ended = {output.request_id for output in last}
        if last:
            outputs = EngineCoreOutputs(finished_requests=ended, outputs=last)
            self.output_queue.put_nowait((client_index, outputs))
        if rest := [name for name in req_ids if name not in ended]:
            send(self, rest, client_index, finish_reason, *more, **named)  # vLLM 0.33 may add an error

    EngineCoreProc._send_finish_outputs_to_client = send_last
