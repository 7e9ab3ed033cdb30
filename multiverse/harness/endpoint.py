"""Asking an OpenAI-compatible endpoint, through the official client. Nothing that was answered is asked again.

What is added here: the store, a ceiling on concurrency and on rates, retries (see `multiverse.harness.retries`), and a
distinction of whose fault a failure is: the request's, the settings' or the endpoint's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

import openai

from multiverse.errors import MultiverseError, RunError
from multiverse.harness.messages import MessageError, reasoning
from multiverse.harness.reply_store import Reply, ReplyStore, request_key
from multiverse.harness.retries import wait_before_retry
from multiverse.harness.settings import Endpoint
from multiverse.wire.responses import FIELD

Message = dict[str, str]

_CHARACTERS_PER_TOKEN = 3.5
_IN_A_ROW = 10
"""So many requests that fail for good, with none between that succeeds, mean that the endpoint is gone."""

# One line per retry is too much for a long run; failures that last are raised.
logging.getLogger("openai").setLevel(logging.WARNING)


class RefusedError(MultiverseError):
    """The endpoint won't have this request: too long, or against its rules."""


class UnavailableError(MultiverseError):
    """No answer after all retries; the same request may do well later."""


class Pace:
    """Spaces the starts of requests so that neither ceiling is passed."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._next = 0.0

    async def wait(self, tokens: float) -> None:
        """Return when a request of so many tokens may start."""
        now = asyncio.get_running_loop().time()
        start = max(now, self._next)
        self._next = start + max(self._request, self._token * tokens)
        await asyncio.sleep(start - now)


@dataclass
class _Shared:
    """A request under way, and how many wait for its answer: the same may be in the input twice."""

    task: asyncio.Task[Reply]
    askers: int = 0


class Client:
    """Asks and keeps the answers. Use it within one event loop, and close it there."""

    def __init__(self, endpoint: Endpoint, store: ReplyStore) -> None:
        self._store = store
        self._slots = asyncio.Semaphore(endpoint.concurrency)
        self._pace = Pace(endpoint.requests_per_minute, endpoint.tokens_per_minute)
        self._pending: dict[str, _Shared] = {}
        self._failures = 0
        self._client = openai.AsyncOpenAI(
            api_key=endpoint.api_key,
            base_url=endpoint.base_url,
            timeout=endpoint.timeout,
            max_retries=0,
        )
        self._retries = endpoint.retries

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def ask(
        self, stage: str, model: str, messages: list[Message], parameters: dict[str, Any], number: int
    ) -> Reply:
        """The answer to a request, from the store if it was answered before.

        Args:
            parameters: go into the body of the request as they are.
            number: which try of the same request this is.

        Raises:
            RefusedError: if this request is at fault.
            UnavailableError: if the endpoint did not answer; it may do so later.
            RunError: if no request can succeed: wrong key, unknown model, endpoint gone.
        """
        key = request_key(stage, model, messages, parameters, number)
        if (known := self._store.reply(key)) is not None:
            return known
        shared = self._pending.get(key)
        if shared is None:
            task = asyncio.create_task(self._answer(key, stage, model, messages, parameters, number))
            shared = self._pending[key] = _Shared(task)
        shared.askers += 1
        try:
            return await asyncio.shield(shared.task)  # who stops asking stops nobody else
        finally:
            shared.askers -= 1
            if shared.askers == 0:
                del self._pending[key]
                shared.task.cancel()  # nothing, if it is done

    async def _answer(
        self, key: str, stage: str, model: str, messages: list[Message], parameters: dict[str, Any], number: int
    ) -> Reply:
        reply = await self._request(model, messages, parameters)
        self._store.put_reply(key, stage, model, number, reply)
        return reply

    async def _request(self, model: str, messages: list[Message], parameters: dict[str, Any]) -> Reply:
        length = sum(len(message["content"]) for message in messages)
        async with self._slots:
            await self._pace.wait(length / _CHARACTERS_PER_TOKEN)
            started = time.monotonic()
            try:
                answer = await self._retried(model, messages, parameters)
            except openai.OpenAIError as error:
                raise self._judge(error) from error
        self._failures = 0
        choice = answer.choices[0] if answer.choices else None
        text = (choice.message.content if choice else None) or ""
        try:
            thoughts = reasoning((choice.message.model_extra if choice else None) or {})
        except MessageError as error:
            raise RefusedError(f"the endpoint's answer can't be read: {error}") from error
        usage = answer.usage
        return Reply(
            text,
            choice.finish_reason if choice else None,
            usage.prompt_tokens if usage else 0,
            usage.completion_tokens if usage else 0,
            time.monotonic() - started,
            (usage.model_extra or {}).get(FIELD) or {} if usage else {},
            thoughts,
        )

    async def _retried(self, model: str, messages: list[Message], parameters: dict[str, Any]) -> Any:
        """What the endpoint answers in the end; its last failure if it never does."""
        create: Any = self._client.chat.completions.create
        for attempt in range(self._retries):
            try:
                return await create(model=model, messages=messages, extra_body=parameters)
            except openai.OpenAIError as error:
                if (seconds := wait_before_retry(error, attempt)) is None:
                    raise
            await asyncio.sleep(seconds)
        return await create(model=model, messages=messages, extra_body=parameters)

    def _judge(self, error: openai.OpenAIError) -> MultiverseError:
        """Whose fault a failure is."""
        if isinstance(error, (openai.BadRequestError, openai.UnprocessableEntityError)):
            return RefusedError(f"the endpoint refuses the request: {error}")
        if isinstance(error, openai.APIStatusError) and error.status_code == 413:
            return RefusedError(f"the request is too long for the endpoint: {error}")
        lasting = isinstance(error, openai.APIStatusError) and error.status_code not in (408, 409, 429)
        if lasting and error.status_code < 500:
            return RunError(f"the endpoint refuses all requests: {error}; see `endpoint` and `model`")
        self._failures += 1
        if self._failures >= _IN_A_ROW:
            return RunError(
                f"the endpoint failed {self._failures} times in a row, last: {error}; run again to go on from here"
            )
        return UnavailableError(f"no answer from the endpoint: {error}")
