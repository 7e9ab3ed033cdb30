"""Puts a fault that this package once had back into a host's processes: a plugin of its own, beside ours.

`PUT_BACK` names the fault. Nothing of it is in the product; what `multiverse stress` says of it is in
`test_stress_faults.py`.
"""

from __future__ import annotations

import os
from typing import Any

FAULT = "PUT_BACK"


def register() -> None:
    """Entry point of both hosts' groups of plugins."""
    FAULTS[os.environ[FAULT]]()


def vllm_widths() -> None:
    """A row of logprobs is as wide as the batch's widest request wants it, in an array that one request's fit."""
    from multiverse_vllm.scheduler import logprobs

    def whole_row(rows: Any, _: int) -> Any:
        return rows.logprob_token_ids[0].copy(), rows.logprobs[0].copy(), int(rows.sampled_token_ranks[0])

    logprobs._row = whole_row


def vllm_reset() -> None:
    """A reset of the cache preempts what runs, and knows nothing of what parents and closed branches hold."""
    from multiverse_vllm.scheduler.scheduler import MultiverseScheduler

    del MultiverseScheduler.reset_prefix_cache


def sglang_parameters() -> None:
    """What is no object is found out in the scheduler, where nobody catches it."""
    from multiverse_sglang.scheduler import wrappers  # noqa: F401, I001  # first: it imports in an order that works
    from multiverse_sglang.frontend import answers, field
    from multiverse_sglang.scheduler import admission

    def program_of(request: Any) -> Any:
        return None if request.sampling_params.custom_params is None else request.sampling_params.custom_params.get("")

    answers.check_parameters = field.check_parameters = lambda _: None
    admission.program_of = program_of
    admission.Admission.admit = admission.Admission._enrol  # type: ignore[method-assign]


def sglang_pause() -> None:
    """A pause that retracts leaves trees the KV that their strands hold."""
    from multiverse_sglang.scheduler import wrappers

    wrappers.Conductor.drop_kv = lambda _: None  # type: ignore[method-assign]


FAULTS = {
    "vllm: none": lambda: None,
    "sglang: none": lambda: None,
    "vllm: widths of logprobs": vllm_widths,
    "vllm: reset of the cache": vllm_reset,
    "sglang: parameters that are no object": sglang_parameters,
    "sglang: pause that retracts": sglang_pause,
}
