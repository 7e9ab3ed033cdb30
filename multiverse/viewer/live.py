"""A page on this machine where one asks a server and sees the branches grow: `multiverse view --live URL`.

The page can't ask the server by itself, which belongs to another origin, so what it asks goes through here. Only this
machine's own page is served: other pages that its user opens can neither ask nor read, whatever name they give to the
machine.
"""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from multiverse.errors import RunError, shown
from multiverse.serving.field import check_depth, read_json
from multiverse.viewer.picture import from_record, template
from multiverse.wire.responses import FIELD

QUESTION = "A = sum 3 5 2 7 1 9; B = max 4 1 9 2 6 8; C = min 8 6 7 9 5 4. Find sum A B C."
_LARGEST = 64 << 20
"""Bytes of a body that the page may send: a record of a very long answer."""
_PATIENCE = 600
_HOSTS = ("127.0.0.1", "localhost", "[::1]")
"""What a browser may call this machine."""


class _RefusedError(Exception):
    """A request that is not the page's: a status, and why."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


logger = logging.getLogger(__name__)


def served_model(url: str) -> str:
    """The first model that the server at `url` has.

    Raises:
        RunError: if it does not answer.
    """
    try:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=30) as response:
            return str(json.load(response)["data"][0]["id"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RunError(f"{url} does not say what it serves: {error}") from error


class LiveServer(ThreadingHTTPServer):
    """Serves the page and hands on what it asks.

    Args:
        url: the server that answers.
        port: where the page is; 0 takes a free one.
        question: what the page begins with.

    Raises:
        RunError: if the server does not answer, or the port is taken.
    """

    daemon_threads = True

    def __init__(self, url: str, port: int, question: str = QUESTION) -> None:
        self.asked, self.model, self.question = url, served_model(url), question
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise RunError(f"port {port} can't be used: {error}") from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    timeout = 60  # seconds, of a client that sends less than it said

    def do_GET(self) -> None:
        try:
            self._check_origin()
        except _RefusedError as refusal:
            self._send(refusal.status, str(refusal))
            return
        if self.path != "/":
            self._send(HTTPStatus.NOT_FOUND, "there is only one page: /")
            return
        settings = json.dumps({"question": self.server.question}).replace("<", "\\u003c")
        self._send(HTTPStatus.OK, template("live.html").replace("/*DATA*/null", settings), "text/html")

    def do_POST(self) -> None:
        try:
            self._check_origin()
            body = self._body()
            handle = {"/ask": self._ask, "/picture": self._picture}[self.path]
            handle(body)
        except _RefusedError as refusal:
            self._send(refusal.status, str(refusal))
        except (KeyError, TypeError, ValueError) as error:
            self._send(HTTPStatus.BAD_REQUEST, f"not what the page asks: {type(error).__name__}: {error}"[:300])

    def _check_origin(self) -> None:
        """Refuse what another page sends, and this page under a name that someone else gave to this machine."""
        ours = [f"{host}:{self.server.server_address[1]}" for host in _HOSTS]
        hosts, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        if len(hosts) != 1 or hosts[0].lower() not in ours:
            raise _RefusedError(HTTPStatus.FORBIDDEN, f"the page is at {self.server.url}, not at {shown(hosts)}")
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            raise _RefusedError(HTTPStatus.FORBIDDEN, f"only the page itself may ask, not {shown(origins)}")

    def _body(self) -> Any:
        """What was sent, as JSON of bounded size and depth."""
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise _RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"must be application/json, got {shown(kind)}")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise _RefusedError(HTTPStatus.BAD_REQUEST, f"Content-Length must say how long it is, got {shown(length)}")
        if len(length) > 12 or int(length) > _LARGEST:
            raise _RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"must be at most {_LARGEST} bytes, got {shown(length)}"
            )
        body = read_json(self.rfile.read(int(length)))
        check_depth("the body", body)
        return body

    def _picture(self, body: Mapping[str, Any]) -> None:
        self._send(HTTPStatus.OK, from_record(body["record"], str(body["title"])).page(), "text/html")

    def _ask(self, body: Mapping[str, Any]) -> None:
        asked = {
            "model": self.server.model,
            "messages": [{"role": "user", "content": str(body["question"])}],
            "max_tokens": body["max_tokens"],
            "temperature": body["temperature"],
            "stream": True,
            "stream_options": {"include_usage": True},
            FIELD: {"stream": "events", "return_tree": True},
        }
        request = urllib.request.Request(
            f"{self.server.asked}/v1/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE) as response:
                self._pass_on(response)
        except urllib.error.HTTPError as error:
            self._send(HTTPStatus(error.code), _message(error))
        except OSError as error:
            self._send(HTTPStatus.BAD_GATEWAY, f"{self.server.asked} does not answer: {error}")

    def _pass_on(self, response: Any) -> None:
        """Each line as it comes. If the page goes away, so does its request."""
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for line in response:
                self.wfile.write(line)
        except OSError as error:
            logger.info("a stream ended early: %s", error)

    def _send(self, status: HTTPStatus, text: str, kind: str = "text/plain") -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, text: str, *values: Any) -> None:
        """Nothing on the terminal for every request."""
        logger.debug(text, *values)


def _message(error: urllib.error.HTTPError) -> str:
    """What the server says about its refusal."""
    text = error.read().decode(errors="replace")
    try:
        told = json.loads(text)
        return str((told.get("error") or told)["message"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return text or str(error)
