"""Stops as vLLM has them: what its rules say of a token, and the text of an answer that ends at a stop string.

vLLM looks for stop strings in the front end, where it can't be told which strand wrote what. For requests that may hold
blocks the scheduler looks for them instead, strand by strand, and names the one that ended the answer in `stop_reason`;
the front end only holds text back as ever, and cuts it there.
"""

from __future__ import annotations

import functools
from typing import Any

from multiverse.decoding.budgets import FinishReason
from multiverse.errors import MultiverseError
from multiverse.serving.options import Options
from multiverse.serving.stops import Stops

_ENDED_AT = "_multiverse_ended_at"
"""Of a detokenizer that looks for no stop strings: the one at which the scheduler ended the answer, once it did."""


def wanted_stops(sampling: Any) -> Stops:
    """What a request with these `SamplingParams` wants to end at."""
    return Stops(
        strings=tuple(sampling.stop or ()),
        tokens=frozenset(sampling.stop_token_ids or ()) - {sampling.eos_token_id},
        keep=sampling.include_stop_str_in_output,
        min_tokens=sampling.min_tokens,
    )


def ended_by_vllm(request: Any, max_model_len: int, branch: bool) -> FinishReason | None:
    """What vLLM ends `request` with at the last of its tokens. A branch is not a request, and does not end as one."""
    from vllm.v1.core.sched.utils import check_stop
    from vllm.v1.request import RequestStatus

    status, reason = request.status, request.stop_reason
    if not check_stop(request, max_model_len):
        return None
    length = request.status == RequestStatus.FINISHED_LENGTH_CAPPED
    if branch:
        request.status, request.stop_reason = status, reason
    return FinishReason.LENGTH if length else FinishReason.STOP


def truncate(request: Any, length: int) -> None:
    """Keep the first `length` tokens of `request`, a branch: no prefix-cache keys are made of its tokens."""
    del request._output_token_ids[max(0, length - request.num_tokens + request.num_output_tokens) :]
    del request._all_token_ids[length:]


def may_fork(server: Options, request: Any, parameters: Any) -> Options | None:
    """The options of `request`, vLLM's or the engine core's, if a scheduler lets it hold blocks."""
    from multiverse_vllm.frontend.inputs import request_options

    if parameters is None or request.prompt_token_ids is None or request.resumable:
        return None
    constraints = parameters.structured_outputs
    if constraints is not None and not constraints.all_constraints_none():
        return None
    options = request_options(server, parameters)
    return options if options.enabled else None


def install() -> None:
    """Let the scheduler say where answers end at stop strings."""
    from vllm.v1.engine import FinishReason as Finished
    from vllm.v1.engine.detokenizer import BaseIncrementalDetokenizer, IncrementalDetokenizer, check_stop_strings
    from vllm.v1.engine.output_processor import OutputProcessor

    make, update = IncrementalDetokenizer.from_new_request, BaseIncrementalDetokenizer.update
    hear = OutputProcessor._update_stats_from_output

    def from_new_request(_cls: Any, tokenizer: Any, request: Any) -> Any:
        detokenizer = make(tokenizer, request)
        if getattr(detokenizer, "stop", None) and _is_ours(request):
            detokenizer.stop = []
            setattr(detokenizer, _ENDED_AT, None)
        return detokenizer

    @functools.wraps(hear)
    def _update_stats_from_output(self: Any, state: Any, output: Any, *args: Any, **kwargs: Any) -> Any:
        by_string = output.finish_reason == Finished.STOP and isinstance(output.stop_reason, str)
        if by_string and hasattr(state.detokenizer, _ENDED_AT):
            setattr(state.detokenizer, _ENDED_AT, output.stop_reason)
        return hear(self, state, output, *args, **kwargs)

    @functools.wraps(update)
    def _update(self: Any, new_token_ids: list[int], stop_terminated: bool) -> Any:
        string = getattr(self, _ENDED_AT, None)
        if string is None:
            return update(self, new_token_ids, stop_terminated)
        update(self, new_token_ids[:-1], False)
        before = len(self.output_text)
        update(self, new_token_ids[-1:], False)
        new = len(self.output_text) - before
        found = check_stop_strings(self.output_text, new, [string], self.include_stop_str_in_output)
        if found is not None and found[1] != -1:
            self.output_text = self.output_text[: found[1]]
        return string

    IncrementalDetokenizer.from_new_request = classmethod(from_new_request)
    OutputProcessor._update_stats_from_output = _update_stats_from_output
    BaseIncrementalDetokenizer.update = _update


def _is_ours(request: Any) -> bool:
    try:
        return may_fork(Options.from_environment(), request, request.sampling_params) is not None
    except MultiverseError:
        return False  # refused by now
