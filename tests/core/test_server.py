"""A server as a process: it is waited for, stopped with all its children, and its log survives what goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from argparse import ArgumentParser
from contextlib import suppress
from pathlib import Path

import pytest

from multiverse.commands import serve
from multiverse.errors import UnsupportedHostError
from multiverse.harness.server import Command, Server, command, free_port
from multiverse.models import TINY

SERVE = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def program(text: str, port: int) -> Command:
    return Command((sys.executable, "-c", text, str(port)))


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def gone(pid: int) -> bool:
    """Whether a process ends within ten seconds."""
    until = time.monotonic() + 10
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not alive(pid)


def test_a_server_is_stopped_with_its_children_and_its_log_removed() -> None:
    port = free_port()
    with Server(program(SERVE, port), port) as server:
        server.wait(30)
        child = int(server.log.read_text().split()[1])
        assert alive(child)
    assert gone(child)
    assert not server.log.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_the_cpu_time_of_a_server_is_that_of_all_its_processes() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\ntime.sleep(600)"
    text = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {burn!r}])\n{burn}"
    port = free_port()
    server = Server(program(text, port), port)
    until = time.monotonic() + 60
    while server.cpu_seconds() < 0.5 and time.monotonic() < until:
        time.sleep(0.05)
    assert server.cpu_seconds() >= 0.5  # one process alone takes 0.3
    server.stop()
    server.log.unlink()


def test_a_server_that_ends_is_reported_with_its_last_words_and_its_log_is_kept() -> None:
    port = free_port()
    with (
        pytest.raises(UnsupportedHostError, match=r"(?s)ended with status 3.*no such model.*whole log is"),
        Server(program("import sys; print('no such model'); sys.exit(3)", port), port) as server,
    ):
        server.wait(30)
    assert server.log.read_text() == "no such model\n"
    server.log.unlink()


def test_a_server_that_says_nothing_is_given_up_and_one_that_will_not_go_is_killed() -> None:
    port, waited = free_port(), []
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    server = Server(program(stubborn, port), port)
    with pytest.raises(UnsupportedHostError, match="did not answer within 2 s"):
        server.wait(2, waited.append)
    assert waited
    server.stop(patience=0.2)
    assert not alive(server._process.pid)
    server.log.unlink()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
def test_a_server_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    text = (
        "import sys, time; from multiverse.harness.server import Command, Server\n"
        "server = Server(Command((sys.executable, '-c', 'import time; time.sleep(600)')), 1)\n"
        "print(server._process.pid, server.log, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert parent.stdout is not None
    pid, log = parent.stdout.readline().split()
    assert alive(int(pid))
    parent.kill()
    parent.wait()
    assert gone(int(pid))
    Path(log).unlink()


def test_a_host_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedHostError, match="unknown host 'tgi'; there are vllm, sglang"):
        command("tgi", "model", 1)
    monkeypatch.setattr("multiverse.harness.server.installed", lambda _: False)
    for host in ("vllm", "sglang"):
        with pytest.raises(UnsupportedHostError, match=f"tools/setup {host}"):
            command(host, "model", 1)


def test_what_the_user_has_set_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    environment = Command(("x",), {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}).full_environment()
    assert environment["OMP_NUM_THREADS"] == "7"
    assert environment["TORCHDYNAMO_DISABLE"] == "1"
    assert environment["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    ("arguments", "model", "more"),
    [
        ([], str(TINY), []),
        (["some/model"], "some/model", []),
        (["--port", "8001", "some/model", "--dtype", "bfloat16"], "some/model", ["--dtype", "bfloat16"]),
        (["--dtype", "bfloat16"], str(TINY), ["--dtype", "bfloat16"]),
    ],
)
def test_the_value_of_an_option_of_the_hosts_is_not_taken_for_the_model(
    arguments: list[str], model: str, more: list[str]
) -> None:
    parser = ArgumentParser()
    serve.add_parser(parser.add_subparsers())
    assert serve.split_model(parser.parse_known_args(["serve", *arguments])[1]) == (model, more)
