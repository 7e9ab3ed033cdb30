"""The last output of answers that an operator aborts (pause with `abort`): whoever is owed one gets its figures too.

vLLM sends such outputs without asking the scheduler what is in them. A client that went away is owed nothing.
"""

from __future__ import annotations

import functools
from typing import Any


def install() -> None:
    """Let the scheduler say what is in the last outputs of forked answers."""
    from vllm.v1.engine import EngineCoreOutputs
    from vllm.v1.engine.core import EngineCoreProc

    send = EngineCoreProc._send_finish_outputs_to_client

    @functools.wraps(send)
    def send_last(self: Any, req_ids: list[str], client_index: int, finish_reason: Any) -> None:
        own = getattr(self.scheduler, "last_outputs", {})
        told = [own.pop(name) for name in req_ids if name in own]
        for output in told:
            output.finish_reason = finish_reason
        if told:
            outputs = EngineCoreOutputs(finished_requests={output.request_id for output in told}, outputs=told)
            self.output_queue.put_nowait((client_index, outputs))
        ended = {output.request_id for output in told}
        if rest := [name for name in req_ids if name not in ended]:
            send(self, rest, client_index, finish_reason)

    EngineCoreProc._send_finish_outputs_to_client = send_last
