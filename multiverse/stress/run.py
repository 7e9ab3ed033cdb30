"""Rounds against a server, one after the other. Nothing of it depends on which host it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from random import Random

import aiohttp

from multiverse.errors import RunError
from multiverse.stress.asks import Ask, Kind, Writer
from multiverse.stress.gauges import Gauges, read_gauges
from multiverse.stress.mix import Surface
from multiverse.stress.operations import OPERATIONS, Operation
from multiverse.stress.report import Report, Round, Settings
from multiverse.stress.results import Answer, Result
from multiverse.stress.rounds import Expected, Traffic, Watch
from multiverse.stress.traffic import Asker

_SLACK = 1e-4
"""Share of the KV cache by which rest may differ from rest."""


async def stress(settings: Settings, told: Callable[[Round], None], progress: Callable[[int, int], None]) -> Report:
    """Run all rounds.

    Args:
        told: called after each round.
        progress: called while one runs, with the requests that are answered and all of them.

    Raises:
        RunError: if the server can't be asked, gives no answer, or has no metrics of the plugin.
    """
    timeout, connector = aiohttp.ClientTimeout(settings.patience), aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        Asker(settings.url, settings.patience) as asker,
        aiohttp.ClientSession(settings.url, timeout=timeout, connector=connector) as client,
    ):
        served = await asker.served()
        start = await asyncio.to_thread(read_gauges, settings.url)
        writer = Writer(served.model, settings.dialect, settings.questions, settings.max_tokens, served.context)
        expected = await _ask_alone(asker, writer)
        answers = [answer["structured"].text for answer in expected.values() if "structured" in answer]
        prompts = writer.prompts(answers)
        surface = Surface(
            served.host, served.model, settings.questions, prompts, settings.max_tokens, settings.promises
        )
        operations = _operations(settings, served.host, served.path)
        report = Report(settings, start, len(expected))
        for number in range(settings.first, settings.first + settings.rounds):
            traffic = Traffic(asker, client, writer, expected, settings.concurrency, operations)
            try:
                report.rounds.append(await _round(number, traffic, surface, report, progress))
            except RunError as error:
                report.gone = str(error)
                report.unanswered = list(traffic.in_flight)
                report.lost = traffic.results
                break
            told(report.rounds[-1])
    return report


def draw(settings: Settings, number: int, writer: Writer, surface: Surface) -> list[Ask]:
    """The requests of a round: each from a generator of its own, so that leaving one out changes no other."""
    asks = []
    for i in range(settings.requests):
        rng = Random(f"{settings.seed} {number} {i}")
        asks.append(surface.draw(rng) if rng.random() < settings.mixed else writer.draw(rng))
    return [ask for i, ask in enumerate(asks) if settings.only is None or i in settings.only]


def _operations(settings: Settings, host: str, model: str) -> list[Operation]:
    """What the operator may do, with the path of the model in its place."""
    if not settings.operate:
        return []
    return [
        operation._replace(
            calls=tuple(
                call._replace(body={key: model if value == "MODEL" else value for key, value in call.body.items()})
                if call.body
                else call
                for call in operation.calls
            )
        )
        for operation in OPERATIONS[host]
    ]


async def _ask_alone(asker: Asker, writer: Writer) -> dict[int, dict[str, Answer]]:
    """By question and kind, what the quiet server answers, of questions that it answers alike twice.

    If tokens run out within a block, how the last ones are divided among its branches depends on when each was
    scheduled, so such an answer is no measure.
    """
    expected: dict[int, dict[str, Answer]] = {}
    alone: tuple[Kind, ...] = ("structured", "plain")
    for question in range(len(writer.questions)):
        twice = [[await asker.answer_alone(writer.compared(kind, question)) for kind in alone] for _ in range(2)]
        if twice[0] == twice[1]:
            structured, plain = twice[0]
            expected[question] = {"plain": plain}
            if not (structured.branches and structured.cut):
                expected[question] |= {"structured": structured, "events": structured}
    return expected


async def _round(
    number: int, traffic: Traffic, surface: Surface, report: Report, progress: Callable[[int, int], None]
) -> Round:
    settings, begun = report.settings, time.monotonic()
    asks = draw(settings, number, traffic.writer, surface)
    async with Watch(settings.url) as watch:
        results = await traffic.run(asks, Random(f"{settings.seed} {number}"), progress)
    seconds = time.monotonic() - begun
    rest, settled, last = await _rest(traffic.asker, traffic.writer, traffic.expected, report)
    return Round(number, [*results, *last], seconds, watch.peak, rest, settled)


async def _rest(
    asker: Asker, writer: Writer, expected: Expected, report: Report
) -> tuple[Gauges, float | None, Sequence[Result]]:
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
