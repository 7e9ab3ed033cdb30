"""An operator's controls over HTTP while answers are being decoded in branches (docs/operating.md)."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import pytest
from openai import InternalServerError, OpenAI
from packaging.version import Version

from multiverse.models.task import Problem
from multiverse.stress.results import PAUSED

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="these are vLLM's controls")
REFUSES = find_spec("vllm") is not None and Version(version("vllm")) >= Version("0.33")
"""Whether vLLM refuses, while it is paused, what 0.32 lets wait."""


def post(server: str, path: str) -> Any:
    request = urllib.request.Request(f"{server}{path}", method="POST")
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.loads(response.read() or "{}")  # vLLM 0.31 says nothing when it sleeps


def ask(client: OpenAI, problem: Problem) -> tuple[str | None, str]:
    messages: Any = [{"role": "user", "content": problem.prompt}]
    answer = client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_tokens=900)
    return answer.choices[0].message.content, answer.choices[0].finish_reason


@pytest.fixture(scope="module")
def questions(problems: list[Problem]) -> list[Problem]:
    return (problems * 32)[:32]


@pytest.fixture(scope="module")
def expected(client: OpenAI, questions: list[Problem]) -> list[tuple[str | None, str]]:
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda problem: ask(client, problem), questions))


@contextmanager
def asked(client: OpenAI, server: str, questions: list[Problem]) -> Iterator[list[Future[tuple[str | None, str]]]]:
    """All questions at once, with branches among them that are being decoded as the block begins."""
    with ThreadPoolExecutor(len(questions)) as pool:
        for _ in range(50):  # they may all be answered before anybody looks
            futures = [pool.submit(ask, client, problem) for problem in questions]
            while not all(future.done() for future in futures):
                if gauge(server, "multiverse:parked_sequences"):
                    yield futures
                    return
        pytest.fail("no branch was seen")


def gauge(server: str, name: str) -> float:
    with urllib.request.urlopen(f"{server}/metrics", timeout=60) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{"))


@pytest.mark.parametrize(
    ("stop", "go"),
    [
        ("/pause?mode=keep", "/resume"),
        ("/sleep?level=1&mode=keep", "/wake_up"),
        ("/reset_prefix_cache?reset_running_requests=true", None),
    ],
)
def test_answers_that_were_stopped_again_and_again_are_whole(
    client: OpenAI, server: str, questions: list[Problem], expected: list[Any], stop: str, go: str | None
) -> None:
    before = gauge(server, "multiverse:replays_total")
    with asked(client, server, questions) as futures:
        for _ in range(4):
            said = post(server, stop)
            assert said.get("success", True)
            if go is not None:
                time.sleep(0.2)
                post(server, go)
            time.sleep(0.3)
        assert [future.result() for future in futures] == expected
    assert gauge(server, "multiverse:replays_total") > before
    assert gauge(server, "multiverse:integrity_failures_total") == 0


def test_a_pause_that_waits_lets_trees_end_and_keeps_or_refuses_what_comes(
    client: OpenAI, server: str, questions: list[Problem], expected: list[Any]
) -> None:
    with asked(client, server, questions) as futures, ThreadPoolExecutor(1) as pool:
        post(server, "/pause?mode=wait")
        time.sleep(0.2)
        begun = [future.result() for future in futures if future.done()]
        assert begun
        late = pool.submit(ask, client, questions[0])
        if REFUSES:
            with pytest.raises(InternalServerError, match=PAUSED):
                late.result()
        else:
            time.sleep(0.5)
            assert not late.done()
        post(server, "/resume")
        assert REFUSES or late.result() == expected[0]
        assert [future.result() for future in futures] == expected


def test_a_pause_that_aborts_ends_every_tree_and_leaves_nothing(
    client: OpenAI, server: str, questions: list[Problem], expected: list[Any]
) -> None:
    with asked(client, server, questions) as futures:
        post(server, "/pause?mode=abort")
        post(server, "/resume")
        failed = [error for future in futures if (error := future.exception()) is not None]
        assert all(REFUSES and PAUSED in str(error) for error in failed), failed
        ended = [future.result() for future in futures if future.exception() is None]
    assert "abort" in {reason for _, reason in ended}
    assert gauge(server, "vllm:kv_cache_usage_perc") == 0
    assert ask(client, questions[1]) == expected[1]
    assert gauge(server, "multiverse:parked_sequences") == 0
    assert gauge(server, "multiverse:integrity_failures_total") == 0
