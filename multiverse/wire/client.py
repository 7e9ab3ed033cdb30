"""A client for branches as they grow, on the `openai` package: `pip install multiverse-engine[client]`.

    with Client("http://localhost:8000/v1") as client:
        stream = client.stream("A = sum 3 5 2; B = max 4 1 9. Find sum A B.", max_tokens=400)
        for event in stream:
            print(event.kind, event.label, event.text)
        print(stream.text, stream.figures)

Any OpenAI client works without it; this one only knows where the events are. `AsyncClient` is the same with `async`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from openai import AsyncOpenAI, OpenAI

from multiverse.errors import OptionError, UnsupportedHostError
from multiverse.wire.events import Branches, Event
from multiverse.wire.responses import FIELD

Messages = str | Sequence[Mapping[str, Any]]
"""A conversation as OpenAI has it, or what a user says."""


class _Stream:
    """What both kinds of streams know.

    Attributes:
        branches: the answer so far.
        finish_reason: why it ended; `None` while it goes on.
        usage: the token counts of the response as the server sent them, once it is whole.
        record: with `return_tree`, figures and tree, once it is whole.
    """

    def __init__(self) -> None:
        self.branches = Branches()
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] = {}
        self.record: dict[str, Any] | None = None
        self._told = False

    @property
    def text(self) -> str:
        """The answer so far, in document order."""
        return self.branches.root.text

    @property
    def figures(self) -> dict[str, Any]:
        """`usage.multiverse`: critical path, parallel degree and so on."""
        found: dict[str, Any] = self.usage.get(FIELD, {})
        return found

    def _read(self, chunk: Any) -> Iterator[Event]:
        """Take one chunk of the response."""
        if chunk.usage is not None:
            self.usage = chunk.usage.model_dump()
        for choice in chunk.choices:
            told = (choice.model_extra or {}).get(FIELD) or {}
            for item in told.get("events", ()):
                self._told = True
                event = Event.from_json(item)
                self.branches.apply(event)
                yield event
            if "tree" in told:
                self.record = told
            if choice.delta.content and not self._told:
                raise UnsupportedHostError(
                    "the server streams no branch events: was it started with --plugin multiverse?"
                )
            self.finish_reason = choice.finish_reason or self.finish_reason


class Stream(_Stream):
    """An answer as it grows: iterate over it for its events."""

    def __init__(self, chunks: Any) -> None:
        super().__init__()
        self._chunks = chunks

    def __iter__(self) -> Iterator[Event]:
        for chunk in self._chunks:
            yield from self._read(chunk)

    def close(self) -> None:
        """Go away; the server stops working on the answer."""
        self._chunks.close()


class AsyncStream(_Stream):
    """An answer as it grows: iterate over it with `async for` for its events."""

    def __init__(self, chunks: Any) -> None:
        super().__init__()
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for chunk in self._chunks:
            for event in self._read(chunk):
                yield event

    async def close(self) -> None:
        """Go away; the server stops working on the answer."""
        await self._chunks.close()


class Client:
    """Asks a server for answers with events.

    Args:
        base_url: of the OpenAI API, for instance `http://localhost:8000/v1`.
        model: the model's name; the first that the server serves if not given.
        options: further arguments of `openai.OpenAI`, such as `api_key` (default: none) and `timeout`.
    """

    def __init__(self, base_url: str, model: str | None = None, **options: Any) -> None:
        self.openai = OpenAI(base_url=base_url, **{"api_key": "none", **options})
        self._model = model

    @property
    def model(self) -> str:
        """The model that is asked."""
        if self._model is None:
            self._model = str(self.openai.models.list().data[0].id)
        return self._model

    def stream(self, messages: Messages, multiverse: Mapping[str, Any] | None = None, **request: Any) -> Stream:
        """Ask.

        Args:
            messages: a conversation, or what a user says.
            multiverse: options of the request, see docs/api.md.
            request: further fields of a chat completion, such as `max_tokens`.

        Raises:
            openai.BadRequestError: if the server refuses a field; it says which and why.
        """
        return Stream(self.openai.chat.completions.create(**_request(self.model, messages, multiverse, request)))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.openai.close()


class AsyncClient:
    """`Client` for asyncio: `stream = await client.stream(...)`, then `async for event in stream`."""

    def __init__(self, base_url: str, model: str | None = None, **options: Any) -> None:
        self.openai = AsyncOpenAI(base_url=base_url, **{"api_key": "none", **options})
        self._model = model

    async def model(self) -> str:
        """The model that is asked."""
        if self._model is None:
            self._model = str((await self.openai.models.list()).data[0].id)
        return self._model

    async def stream(
        self, messages: Messages, multiverse: Mapping[str, Any] | None = None, **request: Any
    ) -> AsyncStream:
        """Ask, as `Client.stream` does."""
        body = _request(await self.model(), messages, multiverse, request)
        return AsyncStream(await self.openai.chat.completions.create(**body))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.openai.close()


def _request(
    model: str, messages: Messages, multiverse: Mapping[str, Any] | None, request: Mapping[str, Any]
) -> dict[str, Any]:
    """A streamed chat completion that asks for events."""
    if request.get("n", 1) != 1:
        raise OptionError(f"a stream of events follows one answer, got n={request['n']}: ask several times")
    conversation = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    options = {**(multiverse or {}), "stream": "events"}
    extra = {**request.get("extra_body", {}), FIELD: options}
    return {
        "stream_options": {"include_usage": True},
        **request,
        "model": model,
        "messages": conversation,
        "stream": True,
        "extra_body": extra,
    }
