"""Before anything reaches the scheduler: flags are refused before a model is loaded, request fields as an HTTP 400."""

from __future__ import annotations

import functools
from typing import Any

from multiverse.errors import OptionError, UnsupportedHostError
from multiverse.options import Options
from multiverse_vllm.refusals import refuse_configuration

FIELD = "multiverse"
"""Key of a request's options in `SamplingParams.extra_args` (`vllm_xargs` in the OpenAI API)."""
STRICT = "multiverse_vllm.strict:StrictTags"


def request_options(server: Options, params: Any) -> Options:
    """The options of a request.

    Args:
        server: the server's own.
        params: vLLM's `SamplingParams`.

    Raises:
        OptionError: naming the field, its value and what is allowed.
    """
    given = (getattr(params, "extra_args", None) or {}).get(FIELD)
    options = server.for_request(given)
    if given is not None and options.enabled and getattr(params, "structured_outputs", None) is not None:
        raise OptionError(
            "structured outputs constrain one sequence, blocks make several: a request can't ask for both. "
            'Leave "multiverse" out, or say {"enabled": false}'
        )
    return options


def install() -> None:
    """Wrap what checks requests, and what an engine is configured with."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.input_processor import InputProcessor

    process_inputs, create_engine_config = InputProcessor.process_inputs, EngineArgs.create_engine_config

    @functools.wraps(process_inputs)
    def _process_inputs(self: Any, request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        request_options(Options.from_environment(), params)
        return process_inputs(self, request_id, prompt, params, *args, **kwargs)

    @functools.wraps(create_engine_config)
    def _create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        config = create_engine_config(self, *args, **kwargs)
        refuse_configuration(config)
        if Options.from_environment().structure == "strict":
            if config.use_v2_model_runner:
                raise UnsupportedHostError(
                    "--multiverse-structure strict needs the V1 model runner: set VLLM_USE_V2_MODEL_RUNNER=0"
                )
            config.model_config.logits_processors = [*(config.model_config.logits_processors or ()), STRICT]
        return config

    InputProcessor.process_inputs = _process_inputs
    EngineArgs.create_engine_config = _create_engine_config
