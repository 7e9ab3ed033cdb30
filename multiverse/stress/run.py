"""Rounds of mixed traffic against one server.

First every question is asked alone, twice; what a server answers alone is what it has to answer in the crowd. After
each round the server has to come to rest: no request, no branch, no KV in use beyond what was at the beginning.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import Random

from multiverse.errors import RunError
from multiverse.stress.asks import Ask, Kind, Writer
from multiverse.stress.gauges import Gauges, read_gauges
from multiverse.stress.report import Report, Round, Settings
from multiverse.stress.results import Answer, Result
from multiverse.stress.traffic import Asker

_SLACK = 1e-4
"""Share of the KV cache by which rest may differ from rest."""
Expected = Mapping[int, Mapping[str, Answer]]


async def stress(settings: Settings, told: Callable[[Round], None]) -> Report:
    """Run all rounds; `told` is called after each.

    Raises:
        RunError: if the server can't be asked or has no metrics of the plugin.
    """
    rng = Random(settings.seed)
    async with Asker(settings.url, settings.patience) as asker:
        model, context = await asker.served()
        start = await asyncio.to_thread(read_gauges, settings.url)
        writer = Writer(model, settings.dialect, settings.questions, settings.max_tokens, context)
        expected = await _ask_alone(asker, writer)
        report = Report(settings, start, len(expected))
        for number in range(1, settings.rounds + 1):
            asks = [writer.draw(rng) for _ in range(settings.requests)]
            try:
                report.rounds.append(await _round(number, asks, asker, writer, expected, report))
            except RunError as error:
                report.gone = str(error)
                break
            told(report.rounds[-1])
    return report


async def _ask_alone(asker: Asker, writer: Writer) -> dict[int, dict[str, Answer]]:
    """By question and kind, what the quiet server answers, of questions that it answers alike twice.

    If tokens run out within a block, how the last ones are divided among its branches depends on when each was
    scheduled, so such an answer is no measure.
    """
    expected: dict[int, dict[str, Answer]] = {}
    alone: tuple[Kind, ...] = ("structured", "plain")
    for question in range(len(writer.questions)):
        twice = [[await asker.answer(writer.compared(kind, question)) for kind in alone] for _ in range(2)]
        if twice[0] == twice[1]:
            structured, plain = twice[0]
            expected[question] = {"plain": plain}
            if not (structured.branches and structured.cut):
                expected[question] |= {"structured": structured, "events": structured}
    return expected


async def _round(
    number: int, asks: Sequence[Ask], asker: Asker, writer: Writer, expected: Expected, report: Report
) -> Round:
    settings, slots = report.settings, asyncio.Semaphore(report.settings.concurrency)

    async def one(ask: Ask) -> Result:
        async with slots:
            return await asker.send(ask, expected)

    begun = time.monotonic()
    async with _Watch(settings.url) as watch:
        results = list(await asyncio.gather(*map(one, asks)))
    seconds = time.monotonic() - begun
    rest, settled, last = await _rest(asker, writer, expected, report)
    return Round(number, [*results, *last], seconds, watch.peak, rest, settled)


class _Watch:
    """Looks at KV usage twice a second while it is open, and remembers the largest."""

    def __init__(self, url: str) -> None:
        self.peak = 0.0
        self._url = url

    async def __aenter__(self) -> _Watch:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _look(self) -> None:
        while True:
            with suppress(RunError):  # whoever asks next notices that nobody is there
                self.peak = max(self.peak, (await asyncio.to_thread(read_gauges, self._url)).kv_usage)
            await asyncio.sleep(0.5)


async def _rest(
    asker: Asker, writer: Writer, expected: Expected, report: Report
) -> tuple[Gauges, float | None, list[Result]]:
    """Wait until nothing is left of a round. Gauges move when a server works, so it is asked something meanwhile."""
    results: list[Result] = []
    begun = time.monotonic()
    while True:
        question = min(expected, default=0)
        results.append(await asker.send(writer.compared("structured", question), expected))
        await asyncio.sleep(1)
        rest = await asyncio.to_thread(read_gauges, report.settings.url)
        if rest.idle and rest.kv_usage <= report.start.kv_usage + _SLACK:
            return rest, time.monotonic() - begun, results
        if time.monotonic() - begun > report.settings.patience:
            return rest, None, results
