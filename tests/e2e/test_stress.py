"""`multiverse stress` against a real server, which holds, and against one that a proxy spoils, which does not."""

from __future__ import annotations

import csv
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import pytest

from multiverse.cli import main
from multiverse.models.task import stream

Spoil = Callable[[str, bytes], bytes]
QUICK = ["--rounds", "1", "--requests", "16", "--concurrency", "8", "--max-tokens", "200"]


@contextmanager
def proxy(server: str, spoil: Spoil) -> Iterator[str]:
    """A server whose bodies are those of `server` after `spoil(path, body)`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.hand_on(None)

        def do_POST(self) -> None:
            self.hand_on(self.rfile.read(int(self.headers["Content-Length"])))

        def hand_on(self, body: bytes | None) -> None:
            request = urllib.request.Request(server + self.path, body, {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    status, kind, data = answer.status, answer.headers["Content-Type"], answer.read()
            except urllib.error.HTTPError as error:
                status, kind, data = error.code, error.headers["Content-Type"], error.read()
            data = spoil(self.path, data)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            try:
                self.wfile.write(data)
            except OSError:
                self.close_connection = True  # the client went away, which is part of the traffic

        def log_message(self, *_: object) -> None: ...

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}"
    finally:
        running.shutdown()
        running.server_close()


def stressed(url: str, file: Path, *more: str) -> int:
    questions = file.with_name("questions.txt")
    questions.write_text("\n".join(problem.prompt for problem in islice(stream(1), 3)))
    return main(["stress", url, "-o", str(file), "--questions", str(questions), *QUICK, *more])


def test_a_server_holds_under_mixed_traffic(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = stressed(server, tmp_path / "stress.csv", "--rounds", "2", "--requests", "40", "--max-tokens", "300")
    output = capsys.readouterr().out
    assert (status, "verdict: held" in output) == (0, True), output
    with (tmp_path / "stress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    total = {name: sum(float(row[name]) for row in rows) for name in rows[0] if rows[0][name]}
    assert (total["different"], total["failed"], total["running"], total["parked"], total["kv_usage"]) == (0,) * 5
    assert min(total[name] for name in ("same", "answered", "left", "refused", "forked_branches", "kv_peak")) > 0
    assert sum(total[name] for name in ("same", "answered", "left", "refused")) >= 80


def test_a_server_holds_while_somebody_operates_it(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The short form of `make mix`: all documented fields, wrong values, pauses, resets and weights."""
    more = ("--operate", "--mixed", "0.9", "--requests", "150", "--concurrency", "32", "--seed", "5")
    status = stressed(server, tmp_path / "stress.csv", *more)
    output = capsys.readouterr().out
    assert (status, "verdict: held" in output) == (0, True), output


def test_answers_that_differ_are_a_failure(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All answers say something else, once the quiet server was asked."""
    scraped: list[str] = []

    def spoil(path: str, body: bytes) -> bytes:
        if path == "/metrics":
            scraped.append(path)
        crowded = path.endswith("/chat/completions") and len(scraped) > 1
        return body.replace(b"Answer", b"answer") if crowded else body

    with proxy(server, spoil) as url:
        assert stressed(url, tmp_path / "stress.csv") == 1
    output = capsys.readouterr().out
    assert re.search(r"[1-9]\d* of \d+ undisturbed answers differ; the first: .*'answer: ", output), output
    assert "verdict: failed" in output


def test_memory_that_is_not_given_back_is_a_failure(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the first answers, the metrics say that a hundredth of the KV cache and a branch are still in use."""
    scraped = iter(range(10**6))

    def spoil(path: str, body: bytes) -> bytes:
        if path != "/metrics" or next(scraped) == 0:
            return body
        text = re.sub(rb"^((?:vllm:kv_cache_usage_perc|sglang:token_usage)\{.*\}) .*$", rb"\1 0.01", body, flags=re.M)
        return re.sub(rb"^(multiverse:parked_sequences\{.*\}) .*$", rb"\1 1", text, flags=re.M)

    with proxy(server, spoil) as url:
        assert stressed(url, tmp_path / "stress.csv", "--patience", "10") == 1
    output = capsys.readouterr().out
    assert re.search(r"round 1: not at rest after 10 s: KV 1\.0%, .* 0 branches, 1 parked", output), output


def test_a_refusal_that_does_not_come_is_a_failure(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(path: str, body: bytes) -> bytes:
        return body.replace(b"max_branches must", b"something must") if "completions" in path else body

    with proxy(server, spoil) as url:
        assert stressed(url, tmp_path / "stress.csv", "--requests", "40", "--seed", "3", "--mixed", "0") == 1
    assert "malformed: 400: " in capsys.readouterr().out


def test_a_server_without_the_plugin_is_refused(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(path: str, body: bytes) -> bytes:
        return body.replace(b"multiverse:", b"other:") if path == "/metrics" else body

    with proxy(server, spoil) as url:
        assert stressed(url, tmp_path / "stress.csv") == 2
    assert "was the server started with --plugin multiverse?" in capsys.readouterr().err
    assert stressed("http://127.0.0.1:9", tmp_path / "stress.csv") == 2
