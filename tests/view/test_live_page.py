"""`multiverse view --live` in a real browser, asking a server that is a program: branches are seen while they grow."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from answers import events, nested, record
from playwright.sync_api import Page, expect

from multiverse.cli import main
from multiverse.errors import RunError
from multiverse.viewer.live import LiveServer

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


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.go.set()
        server.shutdown()


@pytest.fixture
def live(upstream: Upstream) -> Iterator[LiveServer]:
    with LiveServer(upstream.url, 0, "How much is it?") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def number_of(upstream: Upstream, kind: str, key: list[int]) -> int:
    return next(i for i, e in enumerate(events(upstream.answer)) if (e["kind"], e["key"]) == (kind, key))


def test_branches_are_seen_while_they_grow(page: Page, live: LiveServer, upstream: Upstream) -> None:
    upstream.pause = number_of(upstream, "close", [0, 0])
    page.goto(live.url)
    assert page.locator("#question").input_value() == "How much is it?"
    page.locator("#ask").click()
    expect(page.locator(".card")).to_have_count(5)  # three, and two within the second
    expect(page.locator(".card .card")).to_have_count(2)
    expect(page.locator(".card.closed")).to_have_count(3)
    expect(page.locator("#state")).to_contain_text("decoding")
    expect(page.locator(".card.running").first).to_be_in_viewport()
    assert page.locator(".lane span").all_text_contents()[:4] == [
        *("answer", "branch 1", "branch 2", "\u00a0\u00a0branch 2.1"),
    ]
    upstream.go.set()
    expect(page.locator("#state")).to_contain_text("done in")
    expect(page.locator(".card")).to_have_count(7)
    assert page.locator("#figures").text_content() is not None
    figures = record(upstream.answer)
    assert f"tokens {figures['tokens']}" in str(page.locator("#figures").text_content())
    shown = "".join(page.locator("#answer").all_text_contents())
    assert "gggggg" in shown
    assert upstream.asked[0]["multiverse"] == {"stream": "events", "return_tree": True}


def test_lanes_stand_in_document_order_and_end_where_the_positions_do(
    page: Page, live: LiveServer, upstream: Upstream
) -> None:
    page.goto(live.url)
    page.locator("#ask").click()
    expect(page.locator("#state")).to_contain_text("done in")
    names = [name.strip() for name in page.locator(".lane span").all_text_contents()]
    labels = [f"branch {s['label']}" if s["key"] else "answer" for s in record(upstream.answer)["tree"]]
    assert names == [*labels[:-2], *(f"{label} (2)" for label in labels[-2:])]
    _, between, after = bars(page, 0)  # before, between and after two blocks
    ends = [bar["x"] + bar["width"] for row in (1, 2, 5) for bar in bars(page, row)]
    assert between["x"] == pytest.approx(max(ends), abs=1)
    assert after["x"] == pytest.approx(max(bar["x"] + bar["width"] for row in (6, 7) for bar in bars(page, row)), abs=1)


def bars(page: Page, row: int) -> list[Any]:
    """Where the pieces of a lane are drawn."""
    return [each.bounding_box() for each in page.locator(".lane").nth(row).locator(".bar").all()]


def test_the_finished_answer_opens_as_a_timeline(page: Page, live: LiveServer) -> None:
    page.goto(live.url)
    page.locator("#ask").click()
    expect(page.locator("#page")).to_be_enabled()
    with page.expect_popup() as popup:
        page.locator("#page").click()
    timeline = popup.value
    expect(timeline.locator(".lane")).to_have_count(8)
    timeline.close()


def test_an_answer_can_be_stopped_and_the_server_is_told(page: Page, live: LiveServer, upstream: Upstream) -> None:
    upstream.pause = number_of(upstream, "close", [0, 0])
    page.goto(live.url)
    page.locator("#ask").click()
    expect(page.locator(".card")).to_have_count(5)
    page.keyboard.press("Escape")
    expect(page.locator("#state")).to_contain_text("stopped")
    assert upstream.left.wait(10), "the server still streams to nobody"
    upstream.pause = None
    page.locator("#ask").click()
    expect(page.locator("#state")).to_contain_text("done in")


def test_what_the_server_refuses_is_shown_in_its_words(page: Page, live: LiveServer) -> None:
    page.goto(live.url)
    page.locator("#question").fill("refuse")
    page.locator("#ask").click()
    expect(page.locator("#state")).to_have_text(REFUSAL)


def test_a_server_without_events_is_named(page: Page, live: LiveServer, upstream: Upstream) -> None:
    upstream.with_events = False
    page.goto(live.url)
    page.locator("#ask").click()
    expect(page.locator("#state")).to_contain_text("was it started with --plugin multiverse?")


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
