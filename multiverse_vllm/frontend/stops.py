"""The text of an answer that ends at a stop string.

vLLM looks for stop strings in the front end, where it can't be told which strand wrote what. For requests that may hold
blocks the scheduler looks for them instead, strand by strand, and names the one that ended the answer in `stop_reason`;
the front end only holds text back as ever, and cuts it there.
"""

from __future__ import annotations

import functools
from typing import Any

from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
from vllm.v1.engine.detokenizer import BaseIncrementalDetokenizer, IncrementalDetokenizer, check_stop_strings
from vllm.v1.engine.output_processor import OutputProcessor, RequestState

from multiverse.errors import MultiverseError
from multiverse.serving.options import Options
from multiverse_vllm.channels import ENDED_AT
from multiverse_vllm.sampling import may_fork


def install() -> None:
    """Let the scheduler say where answers end at stop strings."""
    make = IncrementalDetokenizer.from_new_request

    def from_new_request(_cls: type, tokenizer: object, request: EngineCoreRequest) -> IncrementalDetokenizer:
        detokenizer = make(tokenizer, request)
        if getattr(detokenizer, "stop", None) and _is_ours(request):
            detokenizer.stop = []
            setattr(detokenizer, ENDED_AT, None)
        return detokenizer

    IncrementalDetokenizer.from_new_request = classmethod(from_new_request)
    OutputProcessor._update_stats_from_output = _note_stop(OutputProcessor._update_stats_from_output)
    BaseIncrementalDetokenizer.update = _cut_at_stop(BaseIncrementalDetokenizer.update)


def _is_ours(request: EngineCoreRequest) -> bool:
    try:
        return may_fork(Options.from_environment(), request, request.sampling_params) is not None
    except MultiverseError:
        return False  # refused by now


def _note_stop(update_stats: Any) -> Any:
    """Around what sees an output before its text is made: the stop string that the scheduler names in it is noted."""

    @functools.wraps(update_stats)
    def wrapped(self: OutputProcessor, state: RequestState, output: EngineCoreOutput, *args: object) -> object:
        by_string = output.finish_reason == FinishReason.STOP and isinstance(output.stop_reason, str)
        if by_string and hasattr(state.detokenizer, ENDED_AT):
            setattr(state.detokenizer, ENDED_AT, output.stop_reason)
        return update_stats(self, state, output, *args)

    return wrapped


def _cut_at_stop(update: Any) -> Any:
    """Around what adds tokens to the text: it ends at the stop string that was noted."""

    @functools.wraps(update)
    def wrapped(self: BaseIncrementalDetokenizer, new_token_ids: list[int], stop_terminated: bool) -> str | None:
        string: str | None = getattr(self, ENDED_AT, None)
        if string is None:
            found: str | None = update(self, new_token_ids, stop_terminated)
            return found
        update(self, new_token_ids[:-1], False)
        before = len(self.output_text)
        update(self, new_token_ids[-1:], False)
        place = check_stop_strings(
            self.output_text, len(self.output_text) - before, [string], self.include_stop_str_in_output
        )
        if place is not None and place[1] != -1:
            self.output_text = self.output_text[: place[1]]
        return string

    return wrapped
