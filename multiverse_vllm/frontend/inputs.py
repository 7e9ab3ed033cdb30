"""The front end of an engine: flags are refused before a model is loaded, request fields as an HTTP 400.

What the scheduler has to tell a client travels in `kv_transfer_params`, the one field of an output that vLLM passes on
as it is. Here it becomes the attribute `multiverse` of a `CompletionOutput`: the record of a finished request, and
under `events` what happened since the last output, if the client wants events.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import msgspec

from multiverse.decoding.prompt import Prompt
from multiverse.errors import OptionError, UnsupportedHostError
from multiverse.serving.containment import Guard
from multiverse.serving.options import Options, show_flags
from multiverse.wire.responses import FIELD, STRUCTURED_OUTPUTS, merge
from multiverse_vllm.frontend import beam_search, stops
from multiverse_vllm.hooks import LLM_HOOKS, require
from multiverse_vllm.refusals import refuse_configuration
from multiverse_vllm.tokenizer import bind_model

STRICT = "multiverse_vllm.worker.strict:StrictTags"
RECORD, EVENTS, VERSIONS = "multiverse_record", "multiverse_events", "multiverse_weight_versions"
"""Keys in `kv_transfer_params`, between the scheduler and the front end only."""
_PENDING, _SPANS = "_multiverse_pending", "_multiverse_spans"

logger = logging.getLogger("vllm.multiverse")


def _fail(one: Any) -> None:
    """End the request of a `RequestState` or of its queue: whoever waits at the queue answers 500 and aborts it.

    Without a server there is no queue; the answer then lacks what the plugin had to tell.
    """
    queue = getattr(one, "queue", one)
    if queue is not None:
        queue.put(RuntimeError("the Multiverse plugin failed on this request; the server's log says how"))


_GUARD: Guard[Any] = Guard(_fail, lambda one: one.request_id, logger)


def request_options(server: Options, params: Any) -> Options:
    """The options of a request.

    Args:
        server: the server's own.
        params: vLLM's `SamplingParams`; the options are under `multiverse` in its `extra_args`.

    Raises:
        OptionError: naming the field, its value and what is allowed.
    """
    given = (getattr(params, "extra_args", None) or {}).get(FIELD)
    options = server.for_request(given)
    if given is not None and options.enabled and getattr(params, "structured_outputs", None) is not None:
        raise OptionError(STRUCTURED_OUTPUTS)
    if options.branch_sampling:
        in_branches(params, options)
    return options


def in_branches(params: Any, options: Options) -> Any:
    """The sampling parameters of a branch of a request with `params`: a copy.

    Raises:
        OptionError: if vLLM does not accept what `branch_sampling` says.
    """
    if not options.branch_sampling:
        return params.clone()
    from vllm.exceptions import VLLMValidationError

    try:
        return msgspec.structs.replace(params.clone(), **options.branch_sampling)
    except (ValueError, VLLMValidationError) as error:
        raise OptionError(f"branch_sampling: {error}") from None


def install() -> None:
    """Wrap what checks requests, what an engine is configured with, and what makes outputs of a scheduler's."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.input_processor import InputProcessor

    process_inputs, create_engine_config = InputProcessor.process_inputs, EngineArgs.create_engine_config

    @functools.wraps(process_inputs)
    def _process_inputs(self: Any, request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        options = request_options(Options.from_environment(), params)
        made = process_inputs(self, request_id, prompt, params, *args, **kwargs)
        if options.enabled and getattr(params, "prompt_logprob_token_ids", None) is not None:
            _refuse_fixed_ids(self.model_config, options, made.prompt_token_ids)
        return made

    @functools.wraps(create_engine_config)
    def _create_engine_config(self: Any, usage_context: Any = None, *args: Any, **kwargs: Any) -> Any:
        config = create_engine_config(self, usage_context, *args, **kwargs)
        refuse_configuration(config)
        if Options.from_environment().structure == "strict":
            if config.use_v2_model_runner:
                raise UnsupportedHostError(
                    "--multiverse-structure strict needs the V1 model runner: set VLLM_USE_V2_MODEL_RUNNER=0"
                )
            config.model_config.logits_processors = [*(config.model_config.logits_processors or ()), STRICT]
        _install_entry_point(getattr(usage_context, "name", ""))
        return config

    add_cli_args = EngineArgs.add_cli_args

    @functools.wraps(add_cli_args)
    def _add_cli_args(parser: Any) -> Any:
        show_flags(parser)
        return add_cli_args(parser)

    InputProcessor.process_inputs = _process_inputs
    EngineArgs.add_cli_args = staticmethod(_add_cli_args)
    EngineArgs.create_engine_config = _create_engine_config
    _install_outputs()
    stops.install()


def _install_entry_point(name: str) -> None:
    """Wrap the way by which requests come: vLLM's server, or its class `LLM`. Both take long to import."""
    if name == "OPENAI_API_SERVER":
        from multiverse_vllm.frontend import api

        api.install()
    elif name == "LLM_CLASS":
        require(LLM_HOOKS)
        from vllm.entrypoints.generate.beam_search import offline

        beam_search.install(offline)


def _refuse_fixed_ids(config: Any, options: Options, prompt: list[int] | None) -> None:
    """Refuse to score tokens by id over a prompt that is computed in parts: vLLM has no place for that."""
    read = Prompt(prompt or [], bind_model(config, options))
    if read.strand.forks or read.open_goal is not None:
        raise OptionError(
            "prompt_logprob_token_ids is not for prompts that hold blocks: ask for prompt_logprobs, or send"
            ' "multiverse": {"enabled": false}'
        )


def _install_outputs() -> None:
    """Let the attribute `multiverse` appear on outputs, whichever way they are merged.

    vLLM handles the outputs of all requests in one task; what raises there ends the server, so it is contained.
    """
    from vllm.outputs import CompletionOutput, RequestOutput, WeightVersionSpan
    from vllm.v1.engine.logprobs import LogprobsProcessor
    from vllm.v1.engine.output_processor import RequestOutputCollector, RequestState

    from multiverse_vllm.scheduler.prompt_logprobs import append_prompt_tensors

    make, complete, add = RequestState.make_request_output, RequestState._new_completion_output, RequestOutput.add
    CompletionOutput.multiverse = None

    @functools.wraps(make)
    def make_request_output(
        self: Any,
        new_token_ids: Any,
        pooling_output: Any,
        finish_reason: Any,
        stop_reason: Any,
        kv_transfer_params: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if kv_transfer_params and not kv_transfer_params.keys().isdisjoint((RECORD, EVENTS, VERSIONS)):
            _GUARD.run(self, _receive, self, kv_transfer_params, otherwise=None)
            kv_transfer_params = None  # there is no connector beside us
        return make(
            self, new_token_ids, pooling_output, finish_reason, stop_reason, kv_transfer_params, *args, **kwargs
        )

    @functools.wraps(complete)
    def new_completion_output(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = complete(self, *args, **kwargs)
        if told := self.__dict__.pop(_PENDING, None):
            output.multiverse = told
        if spans := self.__dict__.pop(_SPANS, None):  # vLLM's own are by when a token was shown
            output.weight_versions = [WeightVersionSpan(*span) for span in spans]
        return output

    @functools.wraps(add)
    def add_output(self: Any, following: Any, aggregate: bool) -> None:
        before = {output.index: output.multiverse for output in self.outputs}
        add(self, following, aggregate)
        after = {output.index: output.multiverse for output in following.outputs if output.multiverse}
        for output in self.outputs:
            if output.index in after:
                output.multiverse = merge(before.get(output.index), after[output.index])
            elif before.get(output.index):
                output.multiverse = before[output.index]

    put = RequestOutputCollector.put

    @functools.wraps(put)
    def put_output(self: Any, output: Any) -> None:
        _GUARD.run(self, put, self, output, otherwise=None)

    RequestOutputCollector.put = put_output
    RequestState.make_request_output = make_request_output
    RequestState._new_completion_output = new_completion_output
    RequestOutput.add = add_output
    LogprobsProcessor._update_prompt_logprobs = append_prompt_tensors(LogprobsProcessor._update_prompt_logprobs)


def _receive(state: Any, sent: Any) -> None:
    """Keep what the scheduler sent about a request for its next output."""
    setattr(state, _SPANS, sent.get(VERSIONS))
    told = {**sent.get(RECORD, {}), "events": sent.get(EVENTS, [])}
    setattr(state, _PENDING, merge(getattr(state, _PENDING, None), told))
