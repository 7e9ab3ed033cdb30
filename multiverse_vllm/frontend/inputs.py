"""What comes into an engine: flags are refused before a model is loaded, request fields as an HTTP 400."""

from __future__ import annotations

import functools
from argparse import ArgumentParser
from typing import Any

from vllm import SamplingParams
from vllm.config import ModelConfig, VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.input_processor import InputProcessor

from multiverse.decoding.prompt import Prompt
from multiverse.errors import OptionError
from multiverse.serving.options import Options, show_flags
from multiverse_vllm.frontend import beam_search
from multiverse_vllm.frontend.hooks import LLM_HOOKS
from multiverse_vllm.hooks import require
from multiverse_vllm.refusals import refuse_configuration
from multiverse_vllm.sampling import request_options
from multiverse_vllm.tokenizer import bind_model

STRICT = {False: "multiverse_vllm.worker.strict:StrictTags", True: "multiverse_vllm.worker.strict_v2:StrictTagsV2"}
"""The mask of strict mode, by whether it runs in the V2 model runner."""


def install() -> None:
    """Wrap what checks requests, and what an engine is configured with."""
    InputProcessor.process_inputs = _check_options(InputProcessor.process_inputs)
    EngineArgs.add_cli_args = staticmethod(_show_flags(EngineArgs.add_cli_args))
    EngineArgs.create_engine_config = _check_configuration(EngineArgs.create_engine_config)


def _check_options(process_inputs: Any) -> Any:
    """Around what makes a request of an input: wrong options are an `OptionError` before the engine core sees them."""

    @functools.wraps(process_inputs)
    def wrapped(
        self: InputProcessor, request_id: str, prompt: object, params: SamplingParams, *args: object, **kwargs: object
    ) -> EngineCoreRequest:
        options = request_options(Options.from_environment(), params)
        if self.vllm_config.speculative_config is not None and (options.branch_sampling or {}).get("min_p"):
            raise OptionError(
                "branch_sampling: min_p can't be set on a server with speculative decoding, by vLLM's rules"
            )
        made = process_inputs(self, request_id, prompt, params, *args, **kwargs)
        if options.enabled and getattr(params, "prompt_logprob_token_ids", None) is not None:
            _refuse_fixed_ids(self.model_config, options, made.prompt_token_ids)
        return made

    return wrapped


def _check_configuration(create_engine_config: Any) -> Any:
    """Around what makes a configuration of flags: what blocks can't work with is refused, strict mode gets its mask."""

    @functools.wraps(create_engine_config)
    def wrapped(self: EngineArgs, usage_context: object = None, *args: object, **kwargs: object) -> VllmConfig:
        config = create_engine_config(self, usage_context, *args, **kwargs)
        refuse_configuration(config)
        if Options.from_environment().structure == "strict":
            mask = STRICT[config.use_v2_model_runner]
            config.model_config.logits_processors = [*(config.model_config.logits_processors or ()), mask]
        _install_entry_point(getattr(usage_context, "name", ""))
        return config

    return wrapped


def _show_flags(add_cli_args: Any) -> Any:
    @functools.wraps(add_cli_args)
    def wrapped(parser: ArgumentParser) -> ArgumentParser:
        show_flags(parser)
        extended: ArgumentParser = add_cli_args(parser)
        return extended

    return wrapped


def _install_entry_point(name: str) -> None:
    """Wrap the way by which requests come: vLLM's server and its batches, or its class `LLM`. Both import for long."""
    if name in ("OPENAI_API_SERVER", "OPENAI_BATCH_RUNNER"):
        from multiverse_vllm.frontend import api

        api.install()
    elif name == "LLM_CLASS":
        require(LLM_HOOKS)
        from vllm.entrypoints.generate.beam_search import offline

        beam_search.install(offline)


def _refuse_fixed_ids(config: ModelConfig, options: Options, prompt: list[int] | None) -> None:
    """Refuse to score tokens by id over a prompt that is computed in parts: vLLM has no place for that."""
    read = Prompt(prompt or [], bind_model(config, options))
    if read.strand.forks or read.open_goal is not None:
        raise OptionError(
            "prompt_logprob_token_ids is not for prompts that hold blocks: ask for prompt_logprobs, or send"
            ' "multiverse": {"enabled": false}'
        )
