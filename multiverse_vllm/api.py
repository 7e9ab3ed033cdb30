"""vLLM's OpenAI server: the `multiverse` field of requests, `usage.multiverse`, events and trees in the choices.

All of it is added around the host's own handlers; a request without blocks passes through as it is. Only imported in
processes that serve HTTP.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion

from multiverse.branches import EventWriter
from multiverse.options import Options
from multiverse.responses import FIELD, add_texts, extra_chunk, usage
from multiverse.stream import BranchEvent
from multiverse_vllm.frontend import request_options
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
    chat, completion = OpenAIServingChat, OpenAIServingCompletion
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
        given = (self.model_extra or {}).get(FIELD)
        if given is not None:
            params.extra_args = {**(params.extra_args or {}), FIELD: given}
        request_options(Options.from_environment(), params)
        return params

    return wrapped


@dataclass
class _Told:
    """What the engine told about the choices of one request.

    Attributes:
        per_prompt: choices of each prompt.
        records: by choice, once it is finished.
        events: since they were last taken.
    """

    tokenizer: Any
    skip_special_tokens: bool
    per_prompt: int = 1
    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    events: list[tuple[int, BranchEvent]] = field(default_factory=list)

    def hear(self, outputs: Any, prompt: int = 0) -> None:
        """Take what the outputs of one prompt bring."""
        for output in outputs:
            if output.multiverse:
                index = prompt * self.per_prompt + output.index
                self.events += [(index, BranchEvent(*event)) for event in output.multiverse.get("events", ())]
                record = {name: value for name, value in output.multiverse.items() if name != "events"}
                if record:
                    add_texts(record, self.tokenizer, self.skip_special_tokens)
                    self.records[index] = record

    async def tap(self, results: Any) -> AsyncGenerator[Any, None]:
        """The engine's outputs as they are, listened to on their way; with several prompts they come with an index."""
        async with aclosing(results):
            async for result in results:
                prompt, output = result if isinstance(result, tuple) else (0, result)
                self.hear(output.outputs, prompt)
                yield result

    def add_to(self, response: Any) -> None:
        """Put figures and trees into a whole response."""
        if not self.records:
            return
        setattr(response.usage, FIELD, usage(self.records.values()))
        for choice in response.choices:
            if "tree" in self.records.get(choice.index, ()):
                setattr(choice, FIELD, self.records[choice.index])


@dataclass
class _Lines:
    """The extra lines of one SSE stream."""

    told: _Told
    kind: str
    head: dict[str, Any]
    writers: dict[int, EventWriter] = field(default_factory=dict)
    sent: set[int] = field(default_factory=set)

    async def around(self, lines: Any) -> AsyncGenerator[str, None]:
        """vLLM's lines, each with what is to be said before it."""
        async with aclosing(lines):
            async for line in lines:
                for payload in self._extra():
                    yield payload
                yield self._with_usage(line)

    def _extra(self) -> Iterator[str]:
        events, self.told.events = self.told.events, []
        grouped: dict[int, list[BranchEvent]] = {}
        for index, event in events:
            grouped.setdefault(index, []).append(event)
        for index, group in grouped.items():
            if index not in self.writers:
                self.writers[index] = EventWriter(self.told.tokenizer, self.told.skip_special_tokens)
            yield self._line(index, {"events": [event.to_json() for event in self.writers[index].write(group)]})
        for index, record in self.told.records.items():
            if "tree" in record and index not in self.sent:
                self.sent.add(index)
                yield self._line(index, record)

    def _line(self, index: int, payload: dict[str, Any]) -> str:
        return f"data: {json.dumps(extra_chunk(self.kind, self.head, index, payload), ensure_ascii=False)}\n\n"

    def _with_usage(self, line: str) -> str:
        """The line, with figures if it is the one that ends a stream with `usage`."""
        if not self.told.records or '"choices":[]' not in line:
            return line
        chunk = json.loads(line.removeprefix("data: "))
        chunk["usage"][FIELD] = usage(self.told.records.values())
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"


def _head(request_id: str, created: int, model: str) -> dict[str, Any]:
    return {"id": request_id, "created": created, "model": model}


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
        lines = _Lines(told, "chat.completion.chunk", _head(request_id, int(time.time()), model))
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
        told = _Told(kwargs["tokenizer"], request.skip_special_tokens, request.n or 1)
        lines = _Lines(told, "text_completion", _head(request_id, created, model))
        return lines.around(generate(self, request, inputs, told.tap(results), request_id, created, model, **kwargs))

    return wrapped


def _answer_completion(respond: Any) -> Any:
    @functools.wraps(respond)
    def wrapped(
        self: Any, results: Any, request: Any, request_id: str, created: int, model: str, tokenizer: Any, *args: Any
    ) -> Any:
        response = respond(self, results, request, request_id, created, model, tokenizer, *args)
        told = _Told(tokenizer, request.skip_special_tokens, request.n or 1)
        for prompt, result in enumerate(results):
            told.hear(result.outputs, prompt)
        told.add_to(response)
        return response

    return wrapped
