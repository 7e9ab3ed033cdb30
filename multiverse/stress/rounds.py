"""One round against a server: its requests, the control questions and the operator beside them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import aiohttp

from multiverse.errors import RunError
from multiverse.stress.asks import Ask, Kind, Writer
from multiverse.stress.exchange import exchange
from multiverse.stress.gauges import read_gauges
from multiverse.stress.mix import has_grammar
from multiverse.stress.operations import Call, Operation
from multiverse.stress.results import Answer, Result
from multiverse.stress.traffic import Asker

Expected = Mapping[int, Mapping[str, Answer]]
CONTROLS: tuple[Kind, ...] = ("structured", "plain")
"""Kinds of the control questions, asked again and again as long as a round lasts."""
_RARE = 6
"""How many times rarer than others an operation is that aborts: an answer that is aborted can't be compared."""
_TOLD = 10.0
"""Seconds between two words of progress."""


@dataclass
class Traffic:
    """What is sent in a round, by whom, and how it went.

    Attributes:
        expected: by question and kind, what a quiet server answers.
        operations: what an operator may do meanwhile; nothing if empty.
        aborted: from when to when an operator ended answers; to infinity while it does.
        in_flight: what was sent and is not answered yet.
    """

    asker: Asker
    client: aiohttp.ClientSession
    writer: Writer
    expected: Expected
    concurrency: int
    operations: Sequence[Operation] = ()
    results: list[Result] = field(default_factory=list)
    aborted: list[tuple[float, float]] = field(default_factory=list)
    in_flight: list[Ask] = field(default_factory=list)

    async def run(self, asks: Sequence[Ask], rng: Random, told: Callable[[int, int], None]) -> list[Result]:
        """Send everything, `concurrency` at once, and wait for all of it."""
        slots = asyncio.Semaphore(self.concurrency)
        ended = asyncio.Event()

        answered = 0

        async def one(ask: Ask) -> None:
            nonlocal answered
            async with slots:
                self.results.append(await self._send(ask))
                answered += 1

        beside = [asyncio.create_task(self._control(kind, ended)) for kind in CONTROLS if self.expected]
        beside += [asyncio.create_task(self._operate(rng, ended))] if self.operations else []
        sending = asyncio.gather(*map(one, asks))
        while not sending.done():
            await asyncio.wait([sending], timeout=_TOLD)
            told(answered, len(asks))
        ended.set()
        await asyncio.gather(sending, *beside)
        return self.results

    async def _send(self, ask: Ask) -> Result:
        begun = time.monotonic()
        self.in_flight.append(ask)
        try:
            sent: Awaitable[Result]
            sent = exchange(self.client, ask) if ask.path else self.asker.send(ask, self.expected)
            result = await sent
        finally:
            self.in_flight.remove(ask)
        cut = any(begun <= end and start <= time.monotonic() for start, end in self.aborted)
        return Result(ask, "left") if cut and result.outcome in ("different", "failed") else result

    async def _control(self, kind: Kind, ended: asyncio.Event) -> None:
        """One question, whose answer must be that of the quiet server whatever happens beside it."""
        question = next(number for number, answers in self.expected.items() if kind in answers)
        while not ended.is_set():
            self.results.append(await self._send(self.writer.compared(kind, question)))

    async def _operate(self, rng: Random, ended: asyncio.Event) -> None:
        while not ended.is_set():
            await asyncio.sleep(rng.uniform(1, 3))
            weights = [1 if each.aborts else _RARE for each in self.operations]
            (operation,) = rng.choices(self.operations, weights)
            begun = time.monotonic()
            if operation.aborts:
                self.aborted.append((begun, math.inf))
            for call in operation.calls:
                self.results.append(await self._call(operation, call))
                await asyncio.sleep(call.pause)
            if operation.aborts:
                self.aborted[-1] = (begun, time.monotonic())

    async def _call(self, operation: Operation, call: Call) -> Result:
        ask, path = Ask("operator", dict(call.body or {}), path=call.path), call.path
        try:
            async with self.client.post(path, json=call.body) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            return Result(ask, "failed", detail=f"{operation.name}: {path}: {type(error).__name__} {error}")
        if answer.status == 400 and self._may_refuse(call):
            return Result(ask, "refused")
        if answer.status != 200:
            return Result(ask, "failed", detail=f"{operation.name}: {path}: {answer.status} {text[:300]}")
        return Result(ask, "answered")

    def _may_refuse(self, call: Call) -> bool:
        grammars = any(has_grammar(ask.body) for ask in self.in_flight)
        return call.refused_while == "busy" or (call.refused_while == "grammars are compiled" and grammars)


class Watch:
    """Looks at KV usage twice a second while it is open, and remembers the largest."""

    def __init__(self, url: str) -> None:
        self.peak = 0.0
        self._url = url

    async def __aenter__(self) -> Watch:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _look(self) -> None:
        while True:
            with suppress(RunError):  # whoever asks next notices that nobody is there
                self.peak = max(self.peak, (await asyncio.to_thread(read_gauges, self._url)).kv_usage)
            await asyncio.sleep(0.5)
