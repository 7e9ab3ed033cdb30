"""Whose fault a failure is decides what is lost: a chain's, the settings' or the endpoint's. Ceilings hold."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from chains import chain
from curating import Configure, Serve, lines

from multiverse.curator import RunError, curate, load_config
from multiverse.curator.store import Store
from multiverse.harness.endpoint import Client, Pace, UnavailableError
from multiverse.harness.settings import Endpoint

# the client brings its own: httpx2 from 3.5 on
httpx: Any = importlib.import_module("httpx2" if importlib.util.find_spec("httpx2") else "httpx")
MESSAGES = [{"role": "user", "content": "# Task: nothing"}]


def answering(teacher: Any, status: int, when: str = "") -> None:
    """Let the teacher answer requests that hold `when` with an error."""
    honest = teacher.answer

    def answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        status_and_body = honest(request)
        if when in request["messages"][1]["content"]:
            return status, {"error": {"message": f"told to answer {status}"}}
        return status_and_body

    teacher.answer = answer


def test_a_request_that_the_endpoint_refuses_costs_one_chain(teach: Serve, configure: Configure) -> None:
    teacher, url = teach()
    answering(teacher, 400, when=chain(1)["question"][:60])
    config = load_config(configure(url, 3))
    run = curate(config)
    assert (run.statistics.accepted, run.statistics.rejected_at) == (2, {"endpoint": 1})
    assert "told to answer 400" in lines(config.output / "rejected.jsonl")[0]["reasons"][0]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_stops_the_run_at_once(status: int, teach: Serve, configure: Configure) -> None:
    teacher, url = teach()
    answering(teacher, status)
    with pytest.raises(RunError, match=f"refuses all requests.*told to answer {status}"):
        curate(load_config(configure(url, 50)))
    assert sum(teacher.seen.values()) <= 16


def test_a_chain_without_an_answer_is_unfinished_and_done_by_the_next_run(teach: Serve, configure: Configure) -> None:
    teacher, url = teach()
    honest = teacher.answer
    answering(teacher, 503, when="# Task: refilling")
    config = load_config(configure(url, [chain(0), chain(5)], endpoint={"retries": 1}))
    run = curate(config)
    assert (run.statistics.chains, run.summary.unfinished) == (0, 2)
    answered = len(teacher.answered)
    teacher.answer = honest  # type: ignore[method-assign]
    run = curate(config)
    assert (run.statistics.accepted, run.summary.unfinished) == (2, 0)
    later = teacher.answered[answered:]
    assert not set(later) & {digest for digest in teacher.answered[:answered] if teacher.seen[digest] == 1}


def test_an_endpoint_that_is_gone_stops_the_run_and_says_how_to_go_on(configure: Configure) -> None:
    config = load_config(configure("http://127.0.0.1:9/v1", 40, endpoint={"retries": 0}))
    with pytest.raises(RunError, match=r"in a row.*run again"):
        curate(config)


def test_failures_with_successes_between_them_do_not_stop_the_run(teach: Serve, configure: Configure) -> None:
    teacher, url = teach()
    answering(teacher, 500, when="# Task: refilling")
    config = load_config(configure(url, 16, endpoint={"retries": 0, "concurrency": 1}))
    assert curate(config).summary.unfinished > 10


def test_no_more_requests_are_under_way_than_allowed(teach: Serve, configure: Configure) -> None:
    teacher, url = teach(latency=0.01)
    most, lock, answer = [0], threading.Lock(), teacher.answer

    def counting(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with lock:
            most[0] = max(most[0], teacher.active)
        return answer(request)

    teacher.answer = counting  # type: ignore[method-assign]
    curate(load_config(configure(url, 12, endpoint={"concurrency": 3})))
    assert most[0] == 3


def test_starts_are_spaced_as_the_ceilings_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the time of a clock that only sleeping advances."""
    starts: list[float] = []

    async def pace() -> None:
        loop = asyncio.get_running_loop()
        now = [loop.time()]
        begin = now[0]

        async def sleep(seconds: float) -> None:
            now[0] += seconds

        monkeypatch.setattr(loop, "time", lambda: now[0])
        monkeypatch.setattr(asyncio, "sleep", sleep)
        limited = Pace(requests_per_minute=60, tokens_per_minute=6000)
        for tokens in (10, 10, 500, 10):
            await limited.wait(tokens)
            starts.append(now[0] - begin)

    asyncio.run(pace())
    assert starts == pytest.approx([0, 1, 2, 7])


def test_the_same_request_is_answered_from_the_store_and_another_try_is_not(teach: Serve, tmp_path: Path) -> None:
    teacher, url = teach()

    async def ask(*numbers: int) -> list[str]:
        with Store(tmp_path / "store.sqlite") as store:
            client = Client(Endpoint(base_url=url), store)
            try:
                messages = [*MESSAGES, *MESSAGES]
                return [(await client.ask("summary", "m", messages, {}, number)).text for number in numbers]
            finally:
                await client.close()

    assert len(set(asyncio.run(ask(0, 0, 1)) + asyncio.run(ask(0)))) == 1
    assert sum(teacher.seen.values()) == 2


async def answers(client: Client, *responses: tuple[int, dict[str, str]]) -> tuple[str, int]:
    """What `client` gets from an endpoint that answers so, the last one for ever, and how often it asked."""
    left, asked = list(responses), 0

    def respond(_request: Any) -> Any:
        nonlocal asked
        asked += 1
        status, headers = left.pop(0) if len(left) > 1 else left[0]
        message = {"role": "assistant", "content": "yes"}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"message": message}]}
        return httpx.Response(status, headers=headers, json=body if status == 200 else {"error": {"message": "later"}})

    client._client = client._client.with_options(http_client=httpx.AsyncClient(transport=httpx.MockTransport(respond)))
    try:
        return (await client.ask("s", "m", MESSAGES, {}, 0)).text, asked
    except UnavailableError as error:
        return str(error), asked
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("responses", "waits"),
    [
        ([(429, {"Retry-After": "300"}), (200, {})], [300]),
        ([(503, {"Retry-After": "150"}), (429, {"Retry-After": "0.5"}), (200, {})], [150, 0.5]),
        ([(429, {"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}), (200, {})], [0]),
        ([(500, {}), (500, {}), (200, {})], [0.5, 1]),
        ([(429, {"Retry-After": "soon"}), (200, {})], [0.5]),
    ],
)
def test_it_waits_as_long_as_the_endpoint_says_and_asks_again(
    responses: list[tuple[int, dict[str, str]]], waits: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also beyond 120 seconds, where the client by itself (openai 3.57) doesn't ask again."""
    slept: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    async def run() -> tuple[str, int]:
        with Store(tmp_path / "store.sqlite") as store:
            monkeypatch.setattr("multiverse.harness.endpoint.asyncio.sleep", note)
            return await answers(Client(Endpoint(base_url="http://x/v1", retries=3), store), *responses)

    assert asyncio.run(run()) == ("yes", len(responses))
    assert slept == pytest.approx([0, *waits], rel=0.26), "after the ceilings"


def test_it_gives_up_after_all_retries_and_where_it_would_wait_for_hours(tmp_path: Path) -> None:
    for headers, retries, expected in (({"Retry-After": "0"}, 2, 3), ({"Retry-After": "7200"}, 5, 1)):
        with Store(tmp_path / "store.sqlite") as store:
            client = Client(Endpoint(base_url="http://x/v1", retries=retries), store)
            text, asked = asyncio.run(answers(client, (429, headers)))
        assert asked == expected
        assert text.startswith("no answer from the endpoint")


def test_two_runs_on_the_same_output_do_not_ask_the_same_twice(teach: Serve, configure: Configure) -> None:
    teacher, url = teach(latency=0.1)
    config = load_config(configure(url, 4))
    first = threading.Thread(target=curate, args=(config,))
    first.start()
    while not teacher.active:
        time.sleep(0.01)
    with pytest.raises(RunError, match="another run is at work"):
        curate(config)
    first.join()
    assert set(teacher.seen.values()) == {1}


@pytest.mark.parametrize("stops", [[0], [1], [0, 1], [0, 1, 2]])
def test_who_stops_asking_stops_nobody_else(teach: Serve, tmp_path: Path, stops: list[int]) -> None:
    """Three ask the same at once; whoever began it may go. If all go, the request goes too."""
    teacher, url = teach()
    go, honest = threading.Event(), teacher.answer

    def late(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        go.wait(20)
        return honest(request)

    teacher.answer = late  # type: ignore[method-assign]

    async def ask() -> tuple[list[Any], bool]:
        with Store(tmp_path / "store.sqlite") as store:
            client = Client(Endpoint(base_url=url), store)
            askers = [asyncio.create_task(client.ask("summary", "m", MESSAGES * 2, {}, 0)) for _ in range(3)]
            await asyncio.sleep(0)
            (shared,) = [pending.task for pending in client._pending.values()]
            for number in stops:
                askers[number].cancel()
            await asyncio.sleep(0)
            go.set()
            answers = await asyncio.gather(*askers, return_exceptions=True)
            await asyncio.wait([shared])
            await client.close()
            assert not client._pending
            return answers, shared.cancelled()

    answers, cancelled = asyncio.run(ask())
    assert [number for number, answer in enumerate(answers) if isinstance(answer, asyncio.CancelledError)] == stops
    assert len({answer.text for answer in answers if not isinstance(answer, BaseException)}) == (len(stops) < 3)
    assert cancelled is (len(stops) == 3)
