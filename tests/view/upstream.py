"""A server that streams what a test tells it to."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from answers import events, nested, record

REFUSAL = "max_tokens must be at most 7, got 900"


class Upstream(ThreadingHTTPServer):
    """Streams one answer, event by event. It stops before the event number `pause` until it is let `go`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.answer = nested()
        self.pause: int | None = None
        self.go, self.left = threading.Event(), threading.Event()
        self.asked: list[dict[str, Any]] = []
        self.with_events = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answering(BaseHTTPRequestHandler):
    server: Upstream

    def do_GET(self) -> None:
        self.reply(200, json.dumps({"data": [{"id": "tiny"}]}))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        if asked["messages"][0]["content"] == "refuse":
            self.reply(400, json.dumps({"error": {"message": REFUSAL}}))
            return
        self.send_response(200)
        self.end_headers()
        try:
            self.stream()
        except OSError:
            self.server.left.set()

    def stream(self) -> None:
        if not self.server.with_events:
            self.line({"choices": [{"index": 0, "delta": {"content": "plain"}}]})
        else:
            for number, event in enumerate(events(self.server.answer)):
                if number == self.server.pause:
                    while not self.server.go.wait(0.05):
                        self.line({"choices": []})  # so that a client that went away is noticed
                self.line({"choices": [{"index": 0, "delta": {}, "multiverse": {"events": [event]}}]})
            told = record(self.server.answer)
            self.line({"choices": [{"index": 0, "delta": {}, "multiverse": told}]})
            figures = {name: value for name, value in told.items() if name != "tree"}
            self.line({"choices": [], "usage": {"completion_tokens": told["tokens"], "multiverse": figures}})
        self.wfile.write(b"data: [DONE]\n\n")

    def line(self, chunk: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.flush()

    def reply(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None: ...


def number_of(upstream: Upstream, kind: str, key: list[int]) -> int:
    return next(i for i, e in enumerate(events(upstream.answer)) if (e["kind"], e["key"]) == (kind, key))
