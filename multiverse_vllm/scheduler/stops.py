"""Stops as vLLM has them: what its rules say of a token, and how a request ends that a controller ends."""

from __future__ import annotations

from vllm import SamplingParams
from vllm.v1.core.sched.utils import check_stop
from vllm.v1.request import RequestStatus

from multiverse.decoding.budgets import FinishReason
from multiverse.serving.stops import Stops
from multiverse_vllm.scheduler.host import Request

STATUS = {
    FinishReason.LENGTH: RequestStatus.FINISHED_LENGTH_CAPPED,
    FinishReason.STOP: RequestStatus.FINISHED_STOPPED,
    FinishReason.ABORT: RequestStatus.FINISHED_ABORTED,
}


def wanted_stops(sampling: SamplingParams) -> Stops:
    """What a request with these parameters wants to end at."""
    return Stops(
        strings=tuple(sampling.stop or ()),
        tokens=frozenset(sampling.stop_token_ids or ()) - {sampling.eos_token_id},
        keep=sampling.include_stop_str_in_output,
        min_tokens=sampling.min_tokens,
    )


def ended_by_vllm(request: Request, max_model_len: int, branch: bool) -> FinishReason | None:
    """What vLLM ends `request` with at the last of its tokens. A branch is not a request, and does not end as one."""
    status, reason = request.status, request.stop_reason
    if not check_stop(request, max_model_len):
        return None
    ended = ending(request)
    if branch:
        request.status, request.stop_reason = status, reason
    return ended


def ending(request: Request) -> FinishReason:
    """How `request`, which vLLM has just ended at a token, ended."""
    length = request.status == RequestStatus.FINISHED_LENGTH_CAPPED
    return FinishReason.LENGTH if length else FinishReason.STOP


def truncate(request: Request, length: int) -> None:
    """Keep the first `length` tokens of `request`, a branch: no prefix-cache keys are made of its tokens."""
    del request._output_token_ids[max(0, length - request.num_tokens + request.num_output_tokens) :]
    del request._all_token_ids[length:]
