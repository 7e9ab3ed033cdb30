"""What vLLM sends of answers that an operator aborts, as pausing with `abort` does."""

from __future__ import annotations

from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from answer import Host

pytest.importorskip("vllm")

from test_stops import QUESTION


def test_an_answer_that_an_operator_aborts_has_its_figures_and_its_rest(host: Host, tiny: tuple[Any, Any]) -> None:
    """The client is owed them. What later branches had said by then comes too."""
    from vllm.v1.engine import FinishReason
    from vllm.v1.engine.core import EngineCoreProc
    from vllm.v1.request import RequestStatus

    prompt = tiny[1].encode(f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n")
    (whole,) = host.generate([prompt])
    name, seen = host.start(prompt, multiverse={"return_tree": True, "stream": "events"}), []
    while len(seen) < 32:
        for tokens in host.step().values():
            seen += tokens
    scheduler = host.scheduler  # type: ignore[attr-defined]
    aborted = scheduler.finish_requests(None, RequestStatus.FINISHED_ABORTED)
    names, queue = [request.request_id for request in aborted], SimpleQueue[Any]()
    assert len(names) == 1
    core = SimpleNamespace(scheduler=scheduler, output_queue=queue)
    EngineCoreProc._send_finish_outputs_to_client(core, names, 0, FinishReason.ABORT)
    _, outputs = queue.get()
    (output,) = outputs.outputs
    assert queue.empty()
    assert output.finish_reason == FinishReason.ABORT
    record = output.kv_transfer_params["multiverse_record"]
    assert record["finish_reason"] == "abort"
    assert record["tokens"] == len(seen) + len(output.new_token_ids)
    assert output.kv_transfer_params["multiverse_events"][-1][0] == "finish"
    assert whole.ids[: len(seen)] == seen
    assert not scheduler.answers.last_outputs
    host.abort(name)
    assert not any(host.leftovers().values()), host.leftovers()
