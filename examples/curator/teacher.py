"""A language model that is a program: an OpenAI-compatible server that answers the Curator's prompts about the chains
of `chains.py` truthfully, and injects the faults that real models and endpoints show.

    python examples/curator/teacher.py --port 8123 --faults 0.3

With it the whole pipeline can be tried without a key. What a prompt asks for is told by its task heading; everything
else is read from the prompt, as a model would have to. The answer to a prompt is always the same; whether it is faulty
depends on the prompt too, so a prompt with the reason fed back may do better. 429, 500 and timeouts depend on how often
it was asked.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lessons import STAGES, Value

TRANSPORT = ("429", "500", "timeout")
CONTENT = ("dropped", "tags", "prose", "cross", "truncated")


class Teacher:
    """Answers requests. Thread-safe.

    Args:
        faults: share of replies that are faulty.
        latency: seconds a reply takes on average; single ones take half to one and a half of it.
        hang: seconds that a request hangs which is to time out.

    Attributes:
        seen: requests by content, refused ones included.
        answered: requests that got a reply, in order.
        active: requests under way.
        injected: faults by kind.
    """

    def __init__(self, faults: float = 0.0, latency: float = 0.0, hang: float = 2.0) -> None:
        self.faults, self.latency, self.hang = faults, latency, hang
        self.seen: Counter[str] = Counter()
        self.answered: list[str] = []
        self.injected: Counter[str] = Counter()
        self.active = 0
        self.before_answer: Callable[[], None] = lambda: None
        self.after_answer: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def answer(self, request: Value) -> tuple[int, Value]:
        """HTTP status and body."""
        content = json.dumps(request, sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        with self._lock:
            attempt = self.seen[digest]
            self.seen[digest] += 1
        fault = self._fault(digest, attempt)
        with self._lock:
            self.injected[fault] += bool(fault)
        spread = 0.5 + int(digest[12:16], 16) / 2**16
        time.sleep(self.hang if fault == "timeout" else self.latency * spread)
        if fault in TRANSPORT:
            status = 504 if fault == "timeout" else int(fault)  # by then the client should have given up
            return status, {"error": {"message": f"injected {fault}", "type": "injected"}}
        text, finish = self._reply(request["messages"], fault)
        words = sum(len(message["content"]) for message in request["messages"])
        with self._lock:
            self.answered.append(digest)
        return 200, {
            "id": digest[:12],
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
            "usage": {
                "prompt_tokens": words // 4,
                "completion_tokens": len(text) // 4,
                "total_tokens": words // 4 + len(text) // 4,
            },
        }

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count a request as under way."""
        with self._lock:
            self.active += 1
        try:
            yield
        finally:
            with self._lock:
                self.active -= 1

    def _fault(self, digest: str, attempt: int) -> str:
        """Three of eight faults concern the transport, and may happen to every attempt anew."""
        draw = int(hashlib.sha256(f"{digest} {attempt}".encode()).hexdigest()[:8], 16) / 2**32
        if draw < self.faults * 3 / 8:
            return TRANSPORT[int(draw * 1e6) % 3]
        draw = int(digest[:8], 16) / 2**32
        if draw < self.faults * 5 / 8 / (1 - self.faults * 3 / 8):
            return CONTENT[int(digest[8:12], 16) % 5]
        return ""

    def _reply(self, messages: list[dict[str, str]], fault: str) -> tuple[str, str]:
        prompt = messages[1]["content"]
        heading = re.search(r"^# Task: (.*)$", prompt, re.MULTILINE)
        if heading is None or heading[1] not in STAGES:
            return "I am a small program and know no answer to this.", "stop"
        value = STAGES[heading[1]](prompt)
        text = _spoil(value, fault)
        if fault == "truncated":
            return text[: len(text) * 2 // 3], "length"
        if fault == "prose":
            text = f"Sure! Here is what I found, with {{x}} as the unknown:\n\n```json\n{text}\n```\n\nAnything else?"
        return text, "stop"


def _spoil(value: Value, fault: str) -> str:
    """The JSON text of `value`, with a fault of its content if there is to be one."""
    if fault == "dropped":
        _drop(value)
    elif fault == "cross" and "edits" in value:
        value["outlines"][-1] += ", as in path 1"
        value["edits"] = {number: f"As in path 1, {text}" for number, text in value["edits"].items()} or value["edits"]
        if not value["edits"]:
            value["conclusion"] = "<Path>see above</Path> " + value["conclusion"]
    elif fault == "tags":
        if "outlines" in value:
            value["outlines"][0] = f"<Outline>{value['outlines'][0]}</Path>"
        else:  # no text of these replies is ever written, so it is their brackets that are unbalanced
            return json.dumps(value)[:-2] + "}"
    text = json.dumps(value, ensure_ascii=False)
    # many models write LaTeX into JSON with a single backslash
    return text.replace("\\\\", "\\") if len(text) % 3 == 0 else text


def _drop(value: Value) -> None:
    if "sentences" in value:
        label = list(value["sentences"])[-1]
        value["sentences"][label] = ""
    elif "steps" in value and len(value["steps"]) > 1:
        value["steps"].pop()
    elif value.get("plan"):
        value["plan"].pop()
    elif value.get("edits"):
        value["edits"] = dict.fromkeys(value["edits"], "")
    elif "outlines" in value:
        value["outlines"].pop()


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        with self.server.teacher.busy():
            self.respond()

    def respond(self) -> None:
        teacher = self.server.teacher
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, body = teacher.answer(request)
        teacher.before_answer()
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status != 200:
                self.send_header("Retry-After-Ms", "20")
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()
        except OSError:  # the client has gone, as after a timeout
            self.close_connection = True
        teacher.after_answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A teacher over HTTP."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, teacher: Teacher, port: int) -> None:
        self.teacher = teacher
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that was killed is no news


def serve(teacher: Teacher, port: int = 0) -> Server:
    """Start to serve in threads; `server_address` has the port."""
    server = Server(teacher, port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--faults", type=float, default=0.0, help="share of replies that are faulty")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds a reply takes")
    options = parser.parse_args()
    server = serve(Teacher(options.faults, options.latency), options.port)
    print(f"serving http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
