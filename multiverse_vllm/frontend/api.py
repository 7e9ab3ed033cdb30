"""vLLM's OpenAI server: the `multiverse` field of requests, `usage.multiverse`, events and trees in the choices.

All of it is added around the host's own handlers; a request without blocks passes through as it is. Only imported in
processes that serve HTTP.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from vllm.entrypoints.generate.beam_search import online
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

from multiverse.errors import OptionError
from multiverse.serving.field import field_of, has_field
from multiverse.serving.options import Options
from multiverse.wire.responses import BEAM_SEARCH, ELSEWHERE, FIELD, Lines, ResponseExtras
from multiverse_vllm.frontend import beam_search
from multiverse_vllm.frontend.inputs import request_options
from multiverse_vllm.hooks import API_HOOKS, require

_MARK = "_multiverse"


def install() -> None:
    """Wrap the handlers. Idempotent.

    Raises:
        UnsupportedHostError: if this vLLM's server is not as the hook table says.
    """
    if hasattr(ChatCompletionRequest, _MARK):
        return
    require(API_HOOKS)
    setattr(ChatCompletionRequest, _MARK, True)
    for request in (ChatCompletionRequest, CompletionRequest):
        request.to_sampling_params = _take_field(request.to_sampling_params)
        request.to_beam_search_params = _refuse_beams(request.to_beam_search_params)
    ResponsesRequest.to_sampling_params = _refuse_field(ResponsesRequest.to_sampling_params)
    beam_search.install(online)
    chat, completion = OpenAIServingChat, OpenAIServingCompletion
    chat.create_chat_completion = _refuse_lost_field(chat.create_chat_completion)
    chat.chat_completion_stream_generator = _stream_chat(chat.chat_completion_stream_generator)
    chat.chat_completion_full_generator = _answer_chat(chat.chat_completion_full_generator)
    completion.completion_stream_generator = _stream_completion(completion.completion_stream_generator)
    completion.request_output_to_completion_response = _answer_completion(
        completion.request_output_to_completion_response
    )


def _take_field(to_sampling_params: Any) -> Any:
    """Hand the request's `multiverse` field on to the engine. Raises OptionError, which vLLM answers with a 400."""

    @functools.wraps(to_sampling_params)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        params = to_sampling_params(self, *args, **kwargs)
        given = field_of(self.model_extra or {})
        if given is not None:
            params.extra_args = {**(params.extra_args or {}), FIELD: given}
        request_options(Options.from_environment(), params)
        return params

    return wrapped


def _refuse_beams(to_beam_search_params: Any) -> Any:
    """Refuse a request that asks for blocks and for beam search. Raises OptionError."""

    @functools.wraps(to_beam_search_params)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = field_of(self.model_extra or {})
        if given is not None and Options.from_environment().for_request(given).enabled:
            raise OptionError(BEAM_SEARCH)
        return to_beam_search_params(self, *args, **kwargs)

    return wrapped


def _refuse_field(to_sampling_params: Any) -> Any:
    """Refuse the field where answers have no place for what it asks. Raises OptionError."""

    @functools.wraps(to_sampling_params)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if has_field({**(self.model_extra or {}), "metadata": self.metadata}):
            raise OptionError(ELSEWHERE)
        return to_sampling_params(self, *args, **kwargs)

    return wrapped


def _refuse_lost_field(create_chat_completion: Any) -> Any:
    """Refuse the field in bodies of other APIs that vLLM makes chat requests of: it does not come along."""

    @functools.wraps(create_chat_completion)
    async def wrapped(self: Any, request: Any, raw_request: Any = None, *args: Any, **kwargs: Any) -> Any:
        if raw_request is not None and not has_field(request.model_extra or {}):
            body = await raw_request.json()  # parsed and kept long since
            if isinstance(body, dict) and has_field(body):
                raise OptionError(ELSEWHERE)
        return await create_chat_completion(self, request, raw_request, *args, **kwargs)

    return wrapped


@dataclass
class _Told(ResponseExtras):
    """What came with the outputs of one request; `per_prompt` choices for each of its prompts."""

    per_prompt: int = 1

    def hear_outputs(self, outputs: Any, prompt: int = 0) -> None:
        """Take what the outputs of one prompt bring."""
        for output in outputs:
            self.receive(prompt * self.per_prompt + output.index, output.multiverse)

    async def tap(self, results: Any) -> AsyncGenerator[Any, None]:
        """The engine's outputs as they are, listened to on their way; with several prompts they come with an index."""
        async with aclosing(results):
            async for result in results:
                prompt, output = result if isinstance(result, tuple) else (0, result)
                self.hear_outputs(output.outputs, prompt)
                yield result

    def add_to(self, response: Any) -> None:
        """Put figures and trees into a whole response, if it is one and no error."""
        if not hasattr(response, "choices"):
            return
        if figures := self.usage():
            setattr(response.usage, FIELD, figures)
        trees = self.trees()
        for choice in response.choices:
            if choice.index in trees:
                setattr(choice, FIELD, trees[choice.index])


def _stream_chat(generate: Any) -> Any:
    @functools.wraps(generate)
    def wrapped(
        self: Any,
        request: Any,
        results: Any,
        request_id: str,
        model: str,
        talk: Any,
        tokenizer: Any,
        *args: Any,
        **kw: Any,
    ) -> Any:
        told = _Told(tokenizer, request.skip_special_tokens)
        lines = Lines(told, "chat.completion.chunk")
        return lines.around(generate(self, request, told.tap(results), request_id, model, talk, tokenizer, *args, **kw))

    return wrapped


def _answer_chat(generate: Any) -> Any:
    @functools.wraps(generate)
    async def wrapped(
        self: Any,
        request: Any,
        results: Any,
        request_id: str,
        model: str,
        talk: Any,
        tokenizer: Any,
        *args: Any,
        **kw: Any,
    ) -> Any:
        told = _Told(tokenizer, request.skip_special_tokens)
        response = await generate(self, request, told.tap(results), request_id, model, talk, tokenizer, *args, **kw)
        told.add_to(response)
        return response

    return wrapped


def _stream_completion(generate: Any) -> Any:
    @functools.wraps(generate)
    def wrapped(
        self: Any, request: Any, inputs: Any, results: Any, request_id: str, created: int, model: str, **kwargs: Any
    ) -> Any:
        told = _Told(kwargs["tokenizer"], request.skip_special_tokens, per_prompt=request.n or 1)
        lines = Lines(told, "text_completion")
        return lines.around(generate(self, request, inputs, told.tap(results), request_id, created, model, **kwargs))

    return wrapped


def _answer_completion(respond: Any) -> Any:
    @functools.wraps(respond)
    def wrapped(
        self: Any, results: Any, request: Any, request_id: str, created: int, model: str, tokenizer: Any, *args: Any
    ) -> Any:
        response = respond(self, results, request, request_id, created, model, tokenizer, *args)
        told = _Told(tokenizer, request.skip_special_tokens, per_prompt=request.n or 1)
        for prompt, result in enumerate(results):
            told.hear_outputs(result.outputs, prompt)
        told.add_to(response)
        return response

    return wrapped
