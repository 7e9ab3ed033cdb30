"""Two servers behind one front (`front.py`), of which one is killed in the middle of trees and started again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import httpx
import pytest
from front import REPLICA, fronted
from servers import FEW_BLOCKS
from streamed import Streamed, assert_whole, scraped, stream

from multiverse.harness.server import Server, command, free_port
from multiverse.models import TINY
from multiverse.models.task import Problem

WAVE = 10
Tokens = dict[tuple[int, ...], list[int]]


@pytest.fixture
def start(host: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Server]:
    """Starts a replica that is to listen on a port."""
    monkeypatch.delenv("MULTIVERSE", raising=False)
    arguments = ["--served-model-name", "tiny", *(FEW_BLOCKS if host == "vllm" else ())]
    return lambda port: Server(command(host, str(TINY), port, arguments), port)


def outcome(future: Future[Streamed]) -> Streamed | None:
    """The answer; `None` if the client was told of an error."""
    try:
        return future.result()
    except httpx.HTTPError:
        return None


def test_no_answer_is_wrong_when_a_replica_is_killed_among_its_trees_and_comes_back(
    server: str, start: Callable[[int], Server], problems: list[Problem]
) -> None:
    forking = [problem for problem in problems * 2 if problem.forks][:WAVE]
    expected = [stream(server, problem).tokens for problem in forking]
    assert all(len(tokens) > 1 for tokens in expected)
    port, amid = free_port(), Event()

    def watch(answer: Streamed) -> bool:
        if answer.headers[REPLICA] == "1" and answer.is_forked:
            amid.set()
        return False

    with ThreadPoolExecutor(WAVE) as pool, fronted([server, f"http://127.0.0.1:{port}"]) as front:

        def wave() -> list[Future[Streamed]]:
            return [pool.submit(stream, front, problem, leave=watch) for problem in forking]

        with start(port) as victim:
            victim.wait(600)
            first = wave()
            assert amid.wait(60)
            victim.stop(patience=0)
            assert None in check(first, expected)
        with start(port) as replica:
            assert check(wave(), expected) == ["0"] * WAVE, "while it starts"
            replica.wait(600)
            assert sorted(map(str, check(wave(), expected))) == ["0"] * (WAVE // 2) + ["1"] * (WAVE // 2)
            left = scraped(replica.url)["0"]
    assert left["forks_total"] > 0
    assert left["integrity_failures_total"] == left["parked_sequences"] == 0


def check(futures: Sequence[Future[Streamed]], expected: Sequence[Tokens]) -> list[str | None]:
    """Which replica gave each answer, of which none may be wrong; `None` where there was an error."""
    outcomes = list(map(outcome, futures))
    for answer, tokens in zip(outcomes, expected, strict=True):
        if answer is not None:
            assert answer.tokens == tokens
            assert_whole(answer)
    return [None if answer is None else answer.headers[REPLICA] for answer in outcomes]
