"""Who answers in the demo: a server over HTTP, or the reference decoder in this process."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console

from multiverse.decoding.budgets import Limits
from multiverse.decoding.document import statistics
from multiverse.decoding.stream import EventStream
from multiverse.errors import TranscriptError
from multiverse.harness.server import Server, command, free_port
from multiverse.viewer.picture import Picture, from_record, from_transcript
from multiverse.wire.events import Branch, Branches, EventWriter

PATIENCE = 600
"""Seconds that a server may take to start on a busy machine."""
Show = Callable[[Branch], None]
"""Called with the root while an answer grows."""


@dataclass(frozen=True)
class Run:
    """One decoding of one question.

    Attributes:
        steps: positions that were decoded one after the other.
        picture: its branches, if it may have some.
    """

    text: str
    tokens: int
    steps: int
    seconds: float
    picture: Picture | None = None

    @property
    def answer(self) -> str:
        """What the embedded model gives as the answer."""
        return self.text.rsplit("Answer:", 1)[1].strip() if "Answer:" in self.text else "none"


class Asked(Protocol):
    """Something that answers questions, in parallel or sequentially."""

    def ask(self, question: str, parallel: bool, show: Show | None = None) -> Run: ...


@contextmanager
def open_host(host: str, options: argparse.Namespace, console: Console) -> Iterator[Asked]:
    """Start whoever answers, and stop it in the end."""
    if options.url:
        yield _Remote(options.url, options.max_tokens)
    elif host == "oracle":
        console.print(f"Loading {options.model}")
        yield _Oracle(options.model, options.max_tokens)
    else:
        port = free_port()
        start = command(host, options.model, port)
        console.print(f"Starting {host} with the plugin:\n  {' '.join(start.arguments)}", style="dim", soft_wrap=True)
        with Server(start, port) as server:
            with console.status("") as status:
                server.wait(PATIENCE, lambda waited: status.update(f"the server is starting, {waited:.0f} s"))
            console.print(f"It answers at {server.url}; its log is {server.log}")
            yield _Remote(server.url, options.max_tokens)
            console.print("Stopping the server")


class _Remote:
    """A server with the plugin. What warms it up, once in either way, is not shown."""

    def __init__(self, url: str, max_tokens: int) -> None:
        try:
            from multiverse.wire.client import Client
        except ImportError as error:
            raise TranscriptError("asking a server needs openai: pip install multiverse-engine[client]") from error
        self._client = Client(f"{url.rstrip('/')}/v1", timeout=600)
        self._max_tokens = max_tokens
        for parallel in (True, False):
            self.ask("A = sum 3 5 2 7 1; B = max 4 1 9 2 6. Find sum A B.", parallel)

    def ask(self, question: str, parallel: bool, show: Show | None = None) -> Run:
        return self._parallel(question, show) if parallel else self._plain(question)

    def _parallel(self, question: str, show: Show | None) -> Run:
        start = time.perf_counter()
        stream = self._client.stream(question, {"return_tree": True}, temperature=0, max_tokens=self._max_tokens)
        for _ in stream:
            if show is not None:
                show(stream.branches.root)
        seconds, tokens = time.perf_counter() - start, stream.usage["completion_tokens"]
        picture = from_record(stream.record, question) if stream.record else None
        return Run(stream.text, tokens, stream.figures.get("critical_path_tokens", tokens), seconds, picture)

    def _plain(self, question: str) -> Run:
        """With the plugin switched off for this request: what the host does by itself."""
        start, text, tokens = time.perf_counter(), "", 0
        chunks: Any = self._client.openai.chat.completions.create(
            model=self._client.model,
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=self._max_tokens,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"multiverse": {"enabled": False}},
        )
        for chunk in chunks:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            tokens = chunk.usage.completion_tokens if chunk.usage else tokens
        return Run(text, tokens, tokens, time.perf_counter() - start)


class _Oracle:
    """The reference decoder: right and slow."""

    def __init__(self, model: str, max_tokens: int) -> None:
        try:
            import torch

            from multiverse.oracle import load
        except ImportError as error:
            raise TranscriptError(
                "the demo needs vLLM or SGLang (tools/setup vllm), or the oracle: pip install multiverse-engine[oracle]"
            ) from error
        torch.set_num_threads(1)  # more only get into each other's way with a model this small
        self._model, self._tokenizer = load(model)
        self._max_tokens = max_tokens

    def ask(self, question: str, parallel: bool, show: Show | None = None) -> Run:
        from multiverse.oracle import Decoder
        from multiverse.structure.binding import bind, detect

        turn = [{"role": "user", "content": question}]
        prompt = self._tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        decoder = Decoder(self._model, bind(detect(self._tokenizer), self._tokenizer))
        limits = Limits(max_tokens=self._max_tokens, max_depth=4 if parallel else 0)
        start = time.perf_counter()
        request = decoder.add(self._tokenizer.encode(prompt, add_special_tokens=False), limits)
        events, writer = EventStream(request.controller.root), EventWriter(self._tokenizer)
        branches = Branches()
        while decoder.busy:
            for step in decoder.step():
                for event in writer.write(events.push(step.strand, step.actions)):
                    branches.apply(event)
            if show is not None:
                show(branches.root)
        seconds = time.perf_counter() - start
        transcript = request.transcript()
        figures = statistics(transcript, len(request.controller.prompt.ids))
        picture = from_transcript(transcript, question)
        return Run(branches.root.text, figures.tokens, figures.critical_path, seconds, picture)
