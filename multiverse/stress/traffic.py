"""One request over HTTP, and how it went. Nothing that a server does is raised; it is an outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import openai

from multiverse.errors import RunError
from multiverse.stress.asks import Ask
from multiverse.stress.results import PAUSED, Answer, Outcome, Result
from multiverse.wire.responses import FIELD

_CORE = ("model", "messages", "prompt", "max_tokens", "temperature", "seed", "stream", "stream_options")
"""Fields of a body that the client knows as arguments."""


class Served(NamedTuple):
    """What a server says of itself: its host, its model's name and path, and the tokens of its context."""

    host: str
    model: str
    path: str
    context: int


class Asker:
    """Asks one server; use it in an `async with`."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._client = openai.AsyncOpenAI(
            base_url=f"{url}/v1",
            api_key="none",
            max_retries=0,
            timeout=timeout,
            default_headers={"Connection": "close"},  # one left idle may be closed by the server as we use it again
        )

    async def __aenter__(self) -> Asker:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def served(self) -> Served:
        """The first model; a small context is taken if the server does not say.

        Raises:
            RunError: if nobody answers.
        """
        try:
            model = (await self._client.models.list()).data[0]
            said = model.model_extra or {}
            host = "sglang" if model.owned_by == "sglang" else "vllm"
            path = await self._path_in_sglang() if host == "sglang" else said.get("root")
        except openai.OpenAIError as error:
            raise RunError(f"{self._client.base_url} does not say what it serves: {error}") from error
        return Served(host, model.id, str(path or model.id), int(said.get("max_model_len") or 1024))

    async def _path_in_sglang(self) -> str | None:
        """Where the weights are. SGLang's list of models has the name that it serves under in its place."""
        said = await self._client.get(f"{self._url}/model_info", cast_to=dict[str, Any])
        return str(said["model_path"]) if "model_path" in said else None

    async def answer_alone(self, ask: Ask) -> Answer:
        """The whole answer of a server that nobody else asks.

        Raises:
            RunError: if there is none.
        """
        try:
            return await self.answer(ask)
        except openai.OpenAIError as error:
            raise RunError(
                f"{self._client.base_url} does not answer even if nobody else asks: {error} "
                f"It has {self._client.timeout} s for an answer (--patience)"
            ) from error

    async def answer(self, ask: Ask) -> Answer:
        """The whole answer. Raises what the client raises."""
        if ask.body.get("stream"):
            async with self._stream(ask.body) as chunks:
                return await _collect(chunks)
        response = await self._create(ask.body)
        choice = response.choices[0]
        text = choice.message.content if "messages" in ask.body else choice.text
        figures = (response.usage.model_extra or {}).get(FIELD) or {}
        cut = choice.finish_reason == "length"
        return Answer(text or "", response.usage.completion_tokens, figures.get("branches", 0), cut)

    async def send(self, ask: Ask, expected: Mapping[int, Mapping[str, Answer]]) -> Result:
        """Ask, and judge what comes back.

        Args:
            expected: by question and kind, what a quiet server answers.
        """
        try:
            if ask.kind == "abort":
                return await self._abort(ask)
            if ask.kind == "gone":
                return await self._leave(ask)
            answer = await self.answer(ask)
        except openai.BadRequestError as error:
            right = ask.kind == "malformed" and ask.complaint in str(error)
            return Result(ask, "refused" if right else "failed", detail="" if right else f"400: {error}")
        except Exception as error:  # whatever the client's transport raises is how it went
            outcome: Outcome = "refused" if PAUSED in str(error) else "failed"
            return Result(ask, outcome, detail=f"{type(error).__name__}: {error}")
        return self._judge(ask, answer, expected)

    @staticmethod
    def _judge(ask: Ask, answer: Answer, expected: Mapping[int, Mapping[str, Answer]]) -> Result:
        if ask.kind == "malformed":
            return Result(ask, "failed", answer, f"was not refused: {ask.body[FIELD]!r}")
        if answer.tokens > ask.body["max_tokens"]:
            return Result(ask, "failed", answer, f"{answer.tokens} tokens of {ask.body['max_tokens']}")
        right = None if ask.question is None else expected.get(ask.question, {}).get(ask.kind)
        if right is None:
            return Result(ask, "answered", answer)
        if (right.text, right.tokens) == (answer.text, answer.tokens):
            return Result(ask, "same", answer)
        return Result(ask, "different", answer, _difference(right, answer))

    async def _abort(self, ask: Ask) -> Result:
        """Read a stream for a while and go away."""
        read = 0
        async with self._stream(ask.body) as chunks:
            async for _ in chunks:
                read += 1
                if read >= ask.patience:
                    break
        return Result(ask, "left")

    async def _leave(self, ask: Ask) -> Result:
        """Go away before the answer is there."""
        try:
            answer = await asyncio.wait_for(self.answer(ask), ask.patience)
        except TimeoutError:
            return Result(ask, "left")
        return Result(ask, "answered", answer)

    async def _create(self, body: Mapping[str, Any]) -> Any:
        known = {name: value for name, value in body.items() if name in _CORE}
        extra = {name: value for name, value in body.items() if name not in _CORE}
        resource: Any = self._client.chat.completions if "messages" in body else self._client.completions
        return await resource.create(**known, extra_body=extra)

    @asynccontextmanager
    async def _stream(self, body: Mapping[str, Any]) -> AsyncIterator[Any]:
        """The chunks of a stream, which is closed at the end."""
        chunks = await self._create({**body, "stream": True})
        try:
            yield chunks
        finally:
            await chunks.close()


async def _collect(chunks: Any) -> Answer:
    text, tokens, branches, cut = "", 0, 0, False
    async for chunk in chunks:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            cut = cut or choice.finish_reason == "length"
        if chunk.usage is not None:
            tokens = chunk.usage.completion_tokens
            branches = ((chunk.usage.model_extra or {}).get(FIELD) or {}).get("branches", 0)
    return Answer(text, tokens, branches, cut)


def _difference(right: Answer, found: Answer) -> str:
    pairs = enumerate(zip(right.text, found.text, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(right.text), len(found.text)))
    said = f"{found.text[at : at + 24]!r} in place of {right.text[at : at + 24]!r} at character {at}"
    return f"{said}, {found.tokens} tokens in place of {right.tokens}"
