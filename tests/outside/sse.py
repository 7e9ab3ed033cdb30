"""A server that streams the chunks it is given, whatever it is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


def chunk(index: int, text: str, **extra: Any) -> dict[str, Any]:
    """One of a chat completion; `extra` are further fields of its choice."""
    choice = {"index": index, "delta": {"role": "assistant", "content": text}, "finish_reason": None, **extra}
    return {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}


@contextmanager
def streaming(chunks: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The base URL of its OpenAI API."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for sent in (*map(json.dumps, chunks), "[DONE]"):
                self.wfile.write(f"data: {sent}\n\n".encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
