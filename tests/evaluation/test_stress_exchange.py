"""How a drawn request's answer is judged, against a server that says what it is told to."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from multiverse.errors import RunError
from multiverse.stress.asks import Ask
from multiverse.stress.exchange import exchange
from multiverse.stress.fields import CHAT
from multiverse.stress.results import Result
from multiverse.stress.traffic import Asker

STREAM, JSON = "text/event-stream", "application/json"
CHUNK = 'data: {"choices": []}\n\n'
ERROR = 'data: {"error": {"message": "no", "code": 500}}\n\n'
DONE = "data: [DONE]\n\n"
PAUSED = '{"error": {"message": "Generation is paused. Please retry after it resumes.", "code": 503}}'


def judged(ask: Ask, status: int, text: str, kind: str = JSON) -> Result:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text, content_type=kind)

    async def send() -> Result:
        app = web.Application()
        app.router.add_post(CHAT, answer)
        async with TestServer(app) as server, ClientSession(str(server.make_url("")).rstrip("/")) as client:
            return await exchange(client, ask)

    return asyncio.run(send())


@pytest.mark.parametrize(
    ("status", "text", "kind", "outcome"),
    [
        (200, "{}", JSON, "answered"),
        (200, CHUNK + DONE, STREAM, "answered"),
        (400, "{}", JSON, "refused"),
        (500, "{}", JSON, "failed"),
        (503, "{}", JSON, "failed"),
        (503, PAUSED, JSON, "refused"),
        (200, f"{CHUNK}data: {PAUSED}\n\n{DONE}", STREAM, "refused"),
        (200, CHUNK + ERROR + DONE, STREAM, "failed"),
        (200, CHUNK, STREAM, "failed"),
        (200, "x", JSON, "failed"),
    ],
)
def test_what_may_come_back(status: int, text: str, kind: str, outcome: str) -> None:
    """Who leaves a grammar nothing to say may get the host's own 500, in a stream as its last words, and no more."""
    ask = Ask("mixed", {"stream": kind == STREAM}, path=CHAT)
    assert judged(ask, status, text, kind).outcome == outcome
    excused = status == 500 or ERROR in text
    assert judged(replace(ask, may_fail=True), status, text, kind).outcome == ("refused" if excused else outcome)


def test_what_has_to_be_refused_is_refused_with_400_and_few_words() -> None:
    ask = Ask("wrong", {}, path=CHAT, must_be_refused=True)
    assert judged(ask, 400, "{}").outcome == "refused"
    for status, text in ((200, "{}"), (422, "{}"), (400, "x" * 5000)):
        assert judged(ask, status, text).outcome == "failed"


def test_who_leaves_may_do_so_within_a_line_of_any_length() -> None:
    """One chunk with many log-probabilities is longer than the lines that aiohttp reads."""
    ask = Ask("mixed", {"stream": True}, path=CHAT, leaves=3)
    assert judged(ask, 200, f'data: {{"long": "{"x" * (1 << 20)}"}}\n\n{CHUNK}{DONE}', STREAM).outcome == "left"


def test_a_server_that_does_not_answer_alone_is_said_not_to_with_the_option_that_gives_it_longer() -> None:
    async def sleep(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    async def ask() -> None:
        app = web.Application()
        app.router.add_post(CHAT, sleep)
        async with TestServer(app) as server, Asker(str(server.make_url("")).rstrip("/"), 0.2) as asker:
            await asker.answer_alone(Ask("plain", {"model": "m", "messages": [{"role": "user", "content": "x"}]}))

    with pytest.raises(
        RunError, match=r"does not answer even if nobody else asks: Request timed out.*0.2 s.*--patience"
    ):
        asyncio.run(ask())
