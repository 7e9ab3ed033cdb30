"""What goes out of an engine: what the scheduler sent of a request becomes the attribute `EXTRAS` of its outputs.

That is the record of a finished request, and under `events` what happened since the last output, if the client wants
events. vLLM handles the outputs of all requests in one task; what raises there ends the server, so it is contained.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import vllm.outputs
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.engine.logprobs import LogprobsProcessor
from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector, RequestState
from vllm.v1.outputs import LogprobsTensors

from multiverse.serving.containment import Guard
from multiverse.wire.responses import merge
from multiverse_vllm.channels import EVENTS, EXTRAS, PENDING, RECORD, SPANS, VERSIONS
from multiverse_vllm.compat import WEIGHT_VERSION_SPANS
from multiverse_vllm.frontend.stops import note_stop

_MAKE = "_new_completion_output"


def _fail(one: RequestState | RequestOutputCollector) -> None:
    """End the request of a `RequestState` or of its queue: whoever waits at the queue answers 500 and aborts it.

    Without a server there is no queue; the answer then lacks what the plugin had to say.
    """
    queue = getattr(one, "queue", one)
    if queue is not None:
        queue.put(RuntimeError("the Multiverse plugin failed on this request; the server's log says how"))


_GUARD: Guard[Any] = Guard(_fail, lambda one: one.request_id, logging.getLogger("vllm.multiverse"))


def install() -> None:
    """Let `EXTRAS` appear on outputs, whichever way they are merged."""
    setattr(CompletionOutput, EXTRAS, None)
    OutputProcessor.process_outputs = _take_extras(OutputProcessor.process_outputs)
    RequestOutput.add = _merge_extras(RequestOutput.add)
    RequestOutputCollector.put = _contain(RequestOutputCollector.put)
    LogprobsProcessor._update_prompt_logprobs = _append_scores(LogprobsProcessor._update_prompt_logprobs)


def _take_extras(process_outputs: Any) -> Any:
    """Around what makes a step's outputs: what the scheduler sent is taken out of vLLM's fields.

    What has to be done then is hung on the objects of that one request, so that nothing is called for all others.
    """

    @functools.wraps(process_outputs)
    def wrapped(self: OutputProcessor, outputs: list[EngineCoreOutput], *args: object, **kwargs: object) -> object:
        for output in outputs:
            if output.kv_transfer_params is not None or output.stop_reason is not None:
                state = self.request_states.get(output.request_id)
                if state is not None:
                    _GUARD.run(state, _receive, state, output, otherwise=None)
        return process_outputs(self, outputs, *args, **kwargs)

    return wrapped


def _receive(state: RequestState, output: EngineCoreOutput) -> None:
    """Keep what the scheduler sent about a request for its next output."""
    note_stop(state, output)
    sent: Mapping[str, Any] = output.kv_transfer_params or {}
    if sent.keys().isdisjoint((RECORD, EVENTS, VERSIONS)):
        return
    output.kv_transfer_params = None  # there is no connector beside us
    setattr(state, SPANS, sent.get(VERSIONS))
    extras = {**sent.get(RECORD, {}), "events": sent.get(EVENTS, [])}
    setattr(state, PENDING, merge(getattr(state, PENDING, None), extras))
    setattr(state, _MAKE, functools.partial(_add_extras, state))


def _add_extras(state: RequestState, *args: object, **kwargs: object) -> CompletionOutput:
    """The next output of one choice, with what was kept for it."""
    delattr(state, _MAKE)
    output: CompletionOutput = getattr(state, _MAKE)(*args, **kwargs)
    if extras := state.__dict__.pop(PENDING, None):
        setattr(output, EXTRAS, extras)
    spans = state.__dict__.pop(SPANS, None)
    if spans and WEIGHT_VERSION_SPANS:  # vLLM's own are by when a token was shown
        output.weight_versions = [vllm.outputs.WeightVersionSpan(*span) for span in spans]
    return output


def _merge_extras(add: Any) -> Any:
    """Around what merges an output with the one that follows it."""

    @functools.wraps(add)
    def wrapped(self: RequestOutput, following: RequestOutput, aggregate: bool) -> None:
        before, after = _extras_of(self), _extras_of(following)
        add(self, following, aggregate)
        for output in self.outputs:
            if output.index in after:
                setattr(output, EXTRAS, merge(before.get(output.index), after[output.index]))
            elif output.index in before:
                setattr(output, EXTRAS, before[output.index])

    return wrapped


def _extras_of(output: RequestOutput) -> dict[int, dict[str, Any]]:
    """By choice, if there are any."""
    return {choice.index: extras for choice in output.outputs if (extras := getattr(choice, EXTRAS))}


def _contain(put: Callable[..., None]) -> Callable[..., None]:
    """Around what hands an output to whoever waits for it."""

    @functools.wraps(put)
    def wrapped(self: RequestOutputCollector, output: RequestOutput) -> None:
        try:
            put(self, output)
        except Exception as error:
            _GUARD.caught(self, error)

    return wrapped


def _append_scores(append: Callable[..., None]) -> Callable[..., None]:
    """Around what adds scores of prompt tokens: one that nothing predicts has no entry, as the first of any prompt."""

    @functools.wraps(append)
    def wrapped(self: LogprobsProcessor, tensors: LogprobsTensors) -> None:
        none = tensors.logprobs[:, :1].isnan().any(1)
        at = 0
        for place in [*none.nonzero()[:, 0].tolist(), len(none)]:
            if place > at:
                append(self, LogprobsTensors(*(tensor[at:place] for tensor in tensors[:3])))
            if place < len(none):
                self.prompt_logprobs.append(None)
            at = place + 1

    return wrapped
