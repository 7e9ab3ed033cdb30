"""vLLM's OpenAI server: the `multiverse` field of requests, `usage.multiverse`, events and trees in the choices.

All of it is added around the host's own handlers; a request without blocks passes through as it is. Only imported in
processes that serve HTTP.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from vllm import SamplingParams
from vllm.entrypoints.generate.beam_search import online
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatCompletionResponse
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionRequest, CompletionResponse
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.outputs import CompletionOutput, RequestOutput

from multiverse.errors import OptionError
from multiverse.serving.field import field_of, has_field
from multiverse.serving.options import Options
from multiverse.wire.responses import BEAM_SEARCH, ELSEWHERE, FIELD, Lines, ResponseExtras
from multiverse_vllm.channels import EXTRAS, INSTALLED, OPTIONS
from multiverse_vllm.compat import skips_special_tokens
from multiverse_vllm.frontend import beam_search
from multiverse_vllm.frontend.hooks import API_HOOKS
from multiverse_vllm.hooks import require
from multiverse_vllm.sampling import request_options

Handler = Callable[..., Any]
Results = AsyncGenerator[RequestOutput | tuple[int, RequestOutput], None]
"""What the engine says about a request; of several prompts, with the index of each."""


def install() -> None:
    """Wrap the handlers. Idempotent.

    Raises:
        UnsupportedHostError: if this vLLM's server is not as the hook table says.
    """
    if hasattr(ChatCompletionRequest, INSTALLED):
        return
    require(API_HOOKS)
    setattr(ChatCompletionRequest, INSTALLED, True)
    for request in (ChatCompletionRequest, CompletionRequest):
        request.to_sampling_params = _take_field(request.to_sampling_params)
        request.to_beam_search_params = _refuse_beams(request.to_beam_search_params)
    ResponsesRequest.to_sampling_params = _refuse_field(ResponsesRequest.to_sampling_params)
    beam_search.install(online)
    chat, completion = OpenAIServingChat, OpenAIServingCompletion
    chat.create_chat_completion = _refuse_lost_field(chat.create_chat_completion)
    chat.chat_completion_stream_generator = _stream(chat.chat_completion_stream_generator, "chat.completion.chunk")
    chat.chat_completion_full_generator = _answer_chat(chat.chat_completion_full_generator)
    completion.completion_stream_generator = _stream(completion.completion_stream_generator, "text_completion")
    completion.request_output_to_completion_response = _answer_completion(
        completion.request_output_to_completion_response
    )


def _take_field(to_sampling_params: Handler) -> Handler:
    """Hand the request's `multiverse` field on to the engine. Raises OptionError, which vLLM answers with a 400."""

    @functools.wraps(to_sampling_params)
    def wrapped(self: ChatCompletionRequest | CompletionRequest, *args: object, **kwargs: object) -> SamplingParams:
        params = to_sampling_params(self, *args, **kwargs)
        given = field_of(self.model_extra or {})
        if given is not None:
            params.extra_args = {**(params.extra_args or {}), OPTIONS: given}
        request_options(Options.from_environment(), params)
        return params

    return wrapped


def _refuse_beams(to_beam_search_params: Handler) -> Handler:
    """Refuse a request that asks for blocks and for beam search. Raises OptionError."""

    @functools.wraps(to_beam_search_params)
    def wrapped(self: ChatCompletionRequest | CompletionRequest, *args: object, **kwargs: object) -> object:
        given = field_of(self.model_extra or {})
        if given is not None and Options.from_environment().for_request(given).enabled:
            raise OptionError(BEAM_SEARCH)
        return to_beam_search_params(self, *args, **kwargs)

    return wrapped


def _refuse_field(to_sampling_params: Handler) -> Handler:
    """Refuse the field where answers have no place for what it asks. Raises OptionError."""

    @functools.wraps(to_sampling_params)
    def wrapped(self: ResponsesRequest, *args: object, **kwargs: object) -> SamplingParams:
        if has_field({**(self.model_extra or {}), "metadata": self.metadata}):
            raise OptionError(ELSEWHERE)
        return to_sampling_params(self, *args, **kwargs)

    return wrapped


def _refuse_lost_field(create_chat_completion: Handler) -> Handler:
    """Refuse the field in bodies of other APIs that vLLM makes chat requests of: it does not come along."""

    @functools.wraps(create_chat_completion)
    async def wrapped(
        self: OpenAIServingChat,
        request: ChatCompletionRequest,
        raw_request: Request | None = None,
        *args: object,
        **kwargs: object,
    ) -> object:
        if raw_request is not None and not has_field(request.model_extra or {}):
            body = await raw_request.json()  # parsed and kept long since
            if isinstance(body, dict) and has_field(body):
                raise OptionError(ELSEWHERE)
        return await create_chat_completion(self, request, raw_request, *args, **kwargs)

    return wrapped


@dataclass
class _Extras(ResponseExtras):
    """What came with the outputs of one request; `per_prompt` choices for each of its prompts."""

    per_prompt: int = 1

    def receive_outputs(self, outputs: Sequence[CompletionOutput], prompt: int = 0) -> None:
        """Take what the outputs of one prompt bring."""
        for output in outputs:
            self.receive(prompt * self.per_prompt + output.index, getattr(output, EXTRAS))

    async def tap(self, results: Results) -> Results:
        """The engine's outputs as they are, listened to on their way."""
        async with aclosing(results):
            async for result in results:
                prompt, output = result if isinstance(result, tuple) else (0, result)
                self.receive_outputs(output.outputs, prompt)
                yield result

    def add_to(self, response: ChatCompletionResponse | CompletionResponse) -> None:
        """Put figures and trees into a whole response, if it is one and no error."""
        if not hasattr(response, "choices"):
            return
        if figures := self.usage():
            setattr(response.usage, FIELD, figures)
        trees = self.trees()
        for choice in response.choices:
            if choice.index in trees:
                setattr(choice, FIELD, trees[choice.index])


def _tapped(handler: Handler, *args: object, **kwargs: object) -> tuple[_Extras, Any]:
    """What comes along with the results that a call of `handler` is about, and what the call returns."""
    call = inspect.signature(handler).bind(*args, **kwargs)
    given = call.arguments
    request = given["request"]
    skips = skips_special_tokens(request, given["self"])
    extras = _Extras(given["tokenizer"], skips, per_prompt=request.n or 1)
    if "result_generator" in given:
        given["result_generator"] = extras.tap(given["result_generator"])
    else:
        for prompt, result in enumerate(given["final_res_batch"]):
            extras.receive_outputs(result.outputs, prompt)
    return extras, handler(*call.args, **call.kwargs)


def _stream(handler: Handler, kind: str) -> Handler:
    """Around what makes a stream of chunks of this `kind`."""

    @functools.wraps(handler)
    def wrapped(*args: object, **kwargs: object) -> AsyncGenerator[str, None]:
        extras, lines = _tapped(handler, *args, **kwargs)
        return Lines(extras, kind).around(lines)

    return wrapped


def _answer_chat(handler: Handler) -> Handler:
    @functools.wraps(handler)
    async def wrapped(*args: object, **kwargs: object) -> ChatCompletionResponse:
        extras, answer = _tapped(handler, *args, **kwargs)
        response = await answer
        extras.add_to(response)
        return response

    return wrapped


def _answer_completion(handler: Handler) -> Handler:
    @functools.wraps(handler)
    def wrapped(*args: object, **kwargs: object) -> CompletionResponse:
        extras, response = _tapped(handler, *args, **kwargs)
        extras.add_to(response)
        return response

    return wrapped
