"""What the server of the live page answers, and to whom."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from upstream import Upstream

from multiverse.cli import main
from multiverse.errors import RunError
from multiverse.viewer.live import LiveServer


def test_nothing_but_the_page_is_served(live: LiveServer) -> None:
    for path, data in (("other", None), ("ask", b"no json"), ("picture", b"{}")):
        request = urllib.request.Request(live.url + path, data, {"Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request, timeout=10)
        assert error.value.code in (400, 404)


def asked(live: LiveServer, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, str]:
    """Status and body of an answer to exactly these headers."""
    connection = http.client.HTTPConnection("127.0.0.1", live.server_address[1], timeout=20)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


OURS = {"Host": "127.0.0.1:PORT", "Content-Type": "application/json"}

QUESTION = b'{"question": "How much is it?", "max_tokens": 400, "temperature": 0}'


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:PORT"}, 200),
        ({"Host": "[::1]:PORT"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:PORT"}, 403),
        ({"Host": "127.0.0.1"}, 403),
        ({"Host": "127.0.0.1:1"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://127.0.0.1:PORT"}, 200),
        ({"Host": "localhost:PORT", "Origin": "http://localhost:PORT"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "https://127.0.0.1:PORT"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_only_the_page_itself_may_read_and_ask(
    live: LiveServer, upstream: Upstream, headers: dict[str, str], status: int
) -> None:
    """Any page that the user opens can send requests here, and with a name of its own for this machine read answers."""
    told = {name: value.replace("PORT", str(live.server_address[1])) for name, value in {**OURS, **headers}.items()}
    upstream.with_events = False
    assert asked(live, "GET", "/", told)[0] == status
    assert asked(live, "POST", "/ask", {**told, "Content-Length": str(len(QUESTION))}, QUESTION)[0] == status
    assert len(upstream.asked) == (status == 200)


DEEP = b"[" * 5_000 + b"]" * 5_000

SHALLOW = b'{"question": "x", "max_tokens": ' + b"[" * 50 + b"1" + b"]" * 50 + b', "temperature": 0}'


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "text/plain"}, QUESTION, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, QUESTION, 415),
        ({"Content-Type": ""}, QUESTION, 415),
        ({"Content-Type": "application/json; charset=utf-8"}, QUESTION, 200),
        ({"Content-Length": "-1"}, b"", 400),
        ({"Content-Length": "x"}, b"", 400),
        ({"Content-Length": ""}, b"", 400),
        ({"Content-Length": "\u00b2"}, b"", 400),
        ({"Content-Length": str(1 << 40)}, b"", 413),
        ({"Content-Length": "9" * 5000}, b"", 413),
        ({}, DEEP, 400),
        ({}, SHALLOW, 400),
        ({}, b"5", 400),
        ({}, b"\xff", 400),
    ],
)
def test_a_body_that_the_page_does_not_send_is_refused_at_once(
    live: LiveServer, upstream: Upstream, headers: dict[str, str], body: bytes, status: int
) -> None:
    told = {**OURS, "Host": f"127.0.0.1:{live.server_address[1]}", "Content-Length": str(len(body)), **headers}
    upstream.with_events = False
    found, text = asked(live, "POST", "/ask", told, body)
    assert found == status
    assert status == 200 or len(text) < 400
    assert len(upstream.asked) == (status == 200)


def test_a_body_without_a_length_is_refused(live: LiveServer) -> None:
    told = {**OURS, "Host": f"127.0.0.1:{live.server_address[1]}"}
    assert asked(live, "POST", "/ask", told)[0] == 400


@pytest.mark.parametrize("record", [{"tree": 5}, {"tree": []}, 5, {"tree": [{"key": []}]}], ids=str)
def test_a_record_that_is_none_is_not_drawn(live: LiveServer, record: Any) -> None:
    body = json.dumps({"title": "x", "record": record}).encode()
    told = {**OURS, "Host": f"127.0.0.1:{live.server_address[1]}", "Content-Length": str(len(body))}
    status, text = asked(live, "POST", "/picture", told, body)
    assert status == 400
    assert "tree" in text


def test_a_live_page_needs_a_server_that_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", "--live", "answer.json"]) == 2
    assert "--live needs the URL of a server, got 'answer.json'" in capsys.readouterr().err
    with pytest.raises(RunError, match="does not say what it serves"):
        LiveServer("http://127.0.0.1:9", 0)
