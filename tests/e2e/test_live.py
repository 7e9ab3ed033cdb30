"""What the page of `multiverse view --live` asks, asked of a real server through the command's own small one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from multiverse.stress.gauges import read_gauges
from multiverse.viewer.live import QUESTION, LiveServer
from multiverse.wire.events import Branches, Event

ASKED = {"question": QUESTION, "max_tokens": 600, "temperature": 0}


@pytest.fixture
def live(server: str) -> Iterator[LiveServer]:
    live = LiveServer(server, 0)
    threading.Thread(target=live.serve_forever, daemon=True).start()
    yield live
    live.shutdown()
    live.server_close()


def answered(live: LiveServer) -> tuple[Branches, Any, list[float]]:
    """What came of the question, and when."""
    branches, record, arrived = Branches(), None, []
    with httpx.stream("POST", f"{live.url}ask", json=ASKED, timeout=120) as response:
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                told = choice.get("multiverse", {})
                for event in told.get("events", ()):
                    branches.apply(Event.from_json(event))
                    arrived.append(time.monotonic())
                record = told if "tree" in told else record
    return branches, record, arrived


def test_branches_stream_through_and_the_answer_can_be_drawn(live: LiveServer) -> None:
    branches, record, arrived = answered(live)
    assert branches.root.text.endswith("Answer: 40")
    assert len(branches.root.blocks[0]) == 3
    streams = [arrived, *(answered(live)[2] for _ in range(4))]  # where others work, a whole answer may come at once
    assert any(len({round(at, 2) for at in stream}) > 5 for stream in streams), "it came all at once"
    picture = httpx.post(f"{live.url}picture", json={"title": QUESTION, "record": record})
    assert picture.status_code == 200
    assert QUESTION in picture.text


def test_who_closes_the_page_ends_the_request(live: LiveServer, server: str) -> None:
    with httpx.stream("POST", f"{live.url}ask", json=ASKED, timeout=120) as response:
        next(response.iter_lines())
    until = time.monotonic() + 60  # SGLang looks after its gauges twice a minute
    while not (rest := read_gauges(server)).idle and time.monotonic() < until:
        time.sleep(0.2)
    assert rest.idle


def test_what_the_server_refuses_comes_through(live: LiveServer) -> None:
    refused = httpx.post(f"{live.url}ask", json={**ASKED, "max_tokens": -1}, timeout=60)
    assert refused.status_code == 400
    assert "tokens must be at least" in refused.text
