"""A server that is a program: it knows the answers to the embedded task, and is wrong, late or gone when told to."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from multiverse import parse_text, statistics
from multiverse.cli import main
from multiverse.models.task import HELD_OUT_SEED, Problem, stream

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before `datasets` is imported
ROOT = Path(__file__).parents[2]
KNOWN: dict[str, Problem] = {problem.prompt: problem for problem in islice(stream(HELD_OUT_SEED), 60)}


@dataclass
class Program:
    """What the server does.

    Attributes:
        wrong: prompts that get a wrong answer.
        pieces: how many tokens the tokenizer makes of a tag; `None` if the server has no tokenizer.
        told: whether it tells figures, as a Multiverse server does.
        status: of every answer to a chat.
        forking: answers with blocks.
        seeds: whether the same request gets the same answer.
        thoughts: where all but the last line of an answer is told, as a server with a reasoning parser does.
        seen: bodies of all chat requests.
    """

    wrong: set[str] = field(default_factory=set)
    pieces: int | None = 1
    told: bool = True
    status: int = 200
    latency: float = 0.0
    forking: bool = True
    seeds: bool = True
    thoughts: str | None = None
    seen: list[dict[str, Any]] = field(default_factory=list)

    def get(self, path: str) -> tuple[int, Any]:
        return (200, {"object": "list", "data": [_model("tiny")]}) if path == "/v1/models" else (404, {})

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/tokenize" and self.pieces is not None:
            return 200, {"count": self.pieces}
        if path != "/v1/chat/completions":
            return 404, {}
        self.seen.append(body)
        time.sleep(self.latency)
        if self.status != 200:
            return self.status, {"error": {"message": f"told to answer {self.status}"}}
        return 200, self.answer(body)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["messages"][-1]["content"]
        problem = KNOWN[prompt]
        text = problem.parallel if self.forking else problem.sequential
        if prompt in self.wrong:
            text = text.rpartition("Answer: ")[0] + "Answer: 100"
        if not self.seeds:
            text = f"{len(self.seen)}. {text}"
        figures = statistics(parse_text(text))
        enabled = body.get("multiverse", {}).get("enabled", True)
        usage: dict[str, Any] = {"prompt_tokens": 20, "completion_tokens": figures.tokens + 1, "total_tokens": 99}
        if self.told and figures.blocks and enabled:
            counted = {"tokens": figures.tokens + 1, "critical_path_tokens": figures.critical_path + 1}
            usage["multiverse"] = {**counted, "fallbacks": {"too_wide": 1} if figures.max_width == 6 else {}}
        message = {"role": "assistant", "content": text}
        if self.thoughts is not None:
            before, line, last = text.rpartition("\n")
            message |= {"content": last, self.thoughts: before + line}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "tiny",
            "choices": choices,
            "usage": usage,
        }


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1, "owned_by": "nobody"}


class Answers(Protocol):
    """What `serve` serves: a status, and JSON, text, or pieces of a text as they come."""

    def get(self, path: str) -> tuple[int, Any]: ...
    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]: ...


def serve(program: Answers, port: int = 0) -> ThreadingHTTPServer:
    """Start to serve in threads."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self.respond(*program.get(self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.respond(*program.post(self.path, body))

        def respond(self, status: int, value: Any) -> None:
            if isinstance(value, Iterator):
                self.stream(value)
                return
            data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                if status != 200:
                    self.send_header("Retry-After-Ms", "20")
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client was killed
                self.close_connection = True

        def stream(self, pieces: Iterator[str]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for piece in pieces:
                self.wfile.write(piece.encode())
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # clients come all at once

    server = Server(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def command(*arguments: object) -> list[str]:
    """The command line of `multiverse eval`."""
    return [sys.executable, "-m", "multiverse", "eval", *map(str, arguments)]


def run(*arguments: object, command: str = "eval") -> subprocess.CompletedProcess[str]:
    """Run a command of `multiverse` with what it prints, in this process: importing everything anew takes seconds."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([command, *map(str, arguments)])
    return subprocess.CompletedProcess([], status, out.getvalue(), err.getvalue())
