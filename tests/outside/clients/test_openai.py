"""The typed OpenAI client and what our servers add to the chunks of a stream. Both environments of hosts have one:
vLLM's the newest release, SGLang's the oldest that is in use."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from openai import OpenAI

OPENAI = ("openai", "2.8.0", "3.57.0")
MESSAGES: Any = [{"role": "user", "content": "?"}]


def chunk(index: int, text: str, **extra: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": {"role": "assistant", "content": text}, "finish_reason": None, **extra}
    return {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}


def event(kind: str) -> dict[str, Any]:
    return {"events": [{"kind": kind, "key": [], "label": ""}]}


class Streaming(BaseHTTPRequestHandler):
    """Sends the chunks that a test wants."""

    chunks: tuple[dict[str, Any], ...] = ()

    def do_POST(self) -> None:  # noqa: N802  # as the library calls it
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for sent in self.chunks:
            self.wfile.write(f"data: {json.dumps(sent)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def client() -> Iterator[OpenAI]:
    with HTTPServer(("127.0.0.1", 0), Streaming) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none", max_retries=0) as made:
            yield made
        server.shutdown()


@pytest.mark.contract(*OPENAI, ours="docs/api.md")
def test_a_created_stream_keeps_what_each_chunk_has_of_ours(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "multiverse": {"blocks": 1}}
    sent = [chunk(1, "b"), chunk(0, "", multiverse=event("fork")), chunk(0, "", multiverse=event("join"))]
    monkeypatch.setattr(Streaming, "chunks", (*sent, chunk(0, "a") | {"choices": [], "usage": usage}))
    got = list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True, n=2))
    events = [choice.multiverse["events"][0]["kind"] for c in got for choice in c.choices if choice.model_extra]
    assert events == ["fork", "join"]
    assert got[-1].usage is not None
    assert got[-1].usage.model_extra == {"multiverse": {"blocks": 1}}


@pytest.mark.contract(*OPENAI, ours="docs/api.md")
def test_the_accumulating_stream_has_ours_of_the_first_chunk_only(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = (chunk(0, "a", multiverse=event("fork")), chunk(0, "b", multiverse=event("join")))
    monkeypatch.setattr(Streaming, "chunks", (*sent, chunk(0, "", finish_reason="stop")))
    with client.chat.completions.stream(model="m", messages=MESSAGES) as stream:
        answer: Any = stream.get_final_completion()
    assert answer.choices[0].message.content == "ab"
    assert answer.choices[0].multiverse == event("fork")


@pytest.mark.contract(*OPENAI, ours="docs/api.md")
def test_the_accumulating_stream_fails_if_the_second_choice_comes_first(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = (chunk(1, "b"), chunk(0, "a"), chunk(0, "", finish_reason="stop"), chunk(1, "", finish_reason="stop"))
    monkeypatch.setattr(Streaming, "chunks", sent)
    with pytest.raises(IndexError), client.chat.completions.stream(model="m", messages=MESSAGES, n=2) as stream:
        stream.get_final_completion()
