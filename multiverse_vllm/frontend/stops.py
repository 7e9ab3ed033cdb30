"""The text of an answer that ends at a stop string.

vLLM looks for stop strings in the front end, where it can't be told which strand wrote what. For requests that may hold
blocks the scheduler looks for them instead, strand by strand, and names the one that ended the answer in `stop_reason`;
the front end only holds text back as ever, and cuts it there.
"""

from __future__ import annotations

import functools

from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
from vllm.v1.engine.detokenizer import BaseIncrementalDetokenizer, IncrementalDetokenizer, check_stop_strings
from vllm.v1.engine.output_processor import RequestState

from multiverse.errors import MultiverseError
from multiverse.serving.options import Options
from multiverse_vllm.channels import ENDED_AT
from multiverse_vllm.sampling import may_fork

_UPDATE = "update"


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


def _is_ours(request: EngineCoreRequest) -> bool:
    try:
        return may_fork(Options.from_environment(), request, request.sampling_params) is not None
    except MultiverseError:
        return False  # refused by now


def note_stop(state: RequestState, output: EngineCoreOutput) -> None:
    """Let the text of a request end at the stop string that the scheduler names in its last output, if it does."""
    by_string = output.finish_reason == FinishReason.STOP and isinstance(output.stop_reason, str)
    if by_string and hasattr(state.detokenizer, ENDED_AT):
        setattr(state.detokenizer, ENDED_AT, output.stop_reason)
        setattr(state.detokenizer, _UPDATE, functools.partial(_cut_at_stop, state.detokenizer))


def _cut_at_stop(self: BaseIncrementalDetokenizer, new_token_ids: list[int], _stop_terminated: bool) -> str:
    """Add the last tokens to the text, which ends at the stop string that was noted; the string."""
    delattr(self, _UPDATE)
    string: str = getattr(self, ENDED_AT)
    self.update(new_token_ids[:-1], False)
    before = len(self.output_text)
    self.update(new_token_ids[-1:], False)
    place = check_stop_strings(
        self.output_text, len(self.output_text) - before, [string], self.include_stop_str_in_output
    )
    if place is not None and place[1] != -1:
        self.output_text = self.output_text[: place[1]]
    return string
