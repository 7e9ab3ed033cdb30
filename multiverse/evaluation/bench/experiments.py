"""The experiments. Each races ways to do the same work against each other, in turn, with new prompts every time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

from multiverse.errors import RunError
from multiverse.evaluation.bench.metrics import turn_metrics
from multiverse.evaluation.bench.points import Point
from multiverse.evaluation.bench.race import Runner, Sizes, Way, race
from multiverse.evaluation.bench.traffic import Ids, Traffic
from multiverse.evaluation.bench.workloads import block, of_tokens, recorded, workload

_MIXED_PLAIN, _MIXED_OTHERS, _MIXED_TOKENS = 4, 2, 256
_PLAIN_TOKENS, _PLAIN_BATCHES = 32, (1, 16, 64)
_BRANCH_TOKENS = 64


async def warm_up(traffic: Traffic, sizes: Sizes) -> None:
    """Once for nothing: one answer in each way, and one batch."""
    load = workload("warm-up", block(2, 4), traffic.words.binding, sizes.prompt)
    for runner in (Runner.sequential(traffic, load), Runner.splice(traffic, load), Runner.splice(traffic, load, 16)):
        await runner.seconds(sizes.prompt)


async def degree(traffic: Traffic, sizes: Sizes) -> AsyncIterator[list[Point]]:
    """(a) Latency per token against parallel degree, for answers of several lengths."""
    for tokens in sizes.tokens:
        loads = {width: of_tokens(tokens, width, traffic.words.binding, sizes.prompt) for width in sizes.widths}
        runners = [replace(Runner.splice(traffic, load), case={"width": width}) for width, load in loads.items()]
        alone = replace(Runner.sequential(traffic, loads[sizes.widths[0]]), case={"width": 1})
        yield await race("degree", {"tokens": tokens}, [alone, *runners], sizes)


async def batch(traffic: Traffic, sizes: Sizes) -> AsyncIterator[list[Point]]:
    """(b) Speed-up against batch size."""
    load = workload("4 x 24", block(4, 24), traffic.words.binding, sizes.prompt)
    for size in sizes.batches:
        runners = [Runner.splice(traffic, load, size), Runner.sequential(traffic, load, size)]
        yield await race("batch", {"batch": size}, runners, sizes)


async def ways(traffic: Traffic, sizes: Sizes) -> AsyncIterator[list[Point]]:
    """(c) The same work in sequence, forked by the client, and forked by the server."""
    for width in sorted({sizes.widths[len(sizes.widths) // 2], sizes.widths[-1]}):
        for length in sizes.lengths:
            load = workload(f"{width} x {length}", block(width, length), traffic.words.binding, sizes.prompt)
            runners = [Runner.splice(traffic, load), Runner.client(traffic, load), Runner.sequential(traffic, load)]
            yield await race("ways", {"width": width, "length": length}, runners, sizes)


async def turns(traffic: Traffic, sizes: Sizes) -> AsyncIterator[list[Point]]:
    """(d) What a fork and a join take, against width, from the server's own metrics."""
    for width in sizes.widths:
        runner = Runner.splice(traffic, workload("", block(width, 32), traffic.words.binding, sizes.prompt))
        before = turn_metrics(traffic.url)
        seconds = [await runner.seconds(sizes.prompt) for _ in range(sizes.repeats)]
        after = turn_metrics(traffic.url)
        told = {n: (after[n][0] - before[n][0]) / (after[n][1] - before[n][1]) for n in after if after[n] != before[n]}
        yield [runner.point("turns", {"width": width}, sizes.prompt, seconds, **told)]


async def plain(pair: Mapping[str, tuple[Traffic, Mapping[str, Any]]], sizes: Sizes) -> AsyncIterator[list[Point]]:
    """(e) Traffic without blocks, with the plugin and without it.

    Args:
        pair: by name of the way, a client, and what it puts into its requests.
    """
    for size in (known for known in _PLAIN_BATCHES if known <= max(sizes.batches)):
        runners = []
        for way, (traffic, body) in pair.items():
            load = workload("", [_PLAIN_TOKENS], traffic.words.binding, sizes.prompt)
            runners.append(Runner(way, _plain_way(traffic, body), traffic, load, size))
        for runner in runners:
            await runner.seconds(sizes.prompt)
        yield await race("plain", {"batch": size}, runners, replace(sizes, repeats=4 * sizes.repeats))


def _plain_way(traffic: Traffic, body: Mapping[str, Any]) -> Way:
    return lambda prompt: traffic.plain(prompt, _PLAIN_TOKENS, **body)


async def mixed(traffic: Traffic, sizes: Sizes) -> AsyncIterator[list[Point]]:
    """(f) Plain requests alone, beside others that decode in sequence, and beside others that fork.

    The others come again and again until the plain ones are answered; their tokens per second are told too.
    """
    if traffic.clock is not time.perf_counter:
        raise RunError("what requests take beside others is wall-clock time")
    binding = traffic.words.binding
    plain_load = workload("", [_MIXED_TOKENS], binding, sizes.prompt)
    load = workload("", block(4, 16), binding, sizes.prompt)
    beside = {
        "alone": None,
        "beside sequential": Runner.sequential(traffic, load),
        "beside splice": Runner.splice(traffic, load),
    }
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in beside}
    for _ in range(sizes.repeats):
        for way, others in beside.items():
            found[way].append(await _beside(traffic, others, sizes.prompt))
    asked = Runner("", _plain_way(traffic, {}), traffic, plain_load, _MIXED_PLAIN)
    yield [
        replace(asked, way=way).point("mixed", {}, sizes.prompt, list(seconds), others_tokens_per_second=list(rates))
        for way, rows in found.items()
        for seconds, rates in [zip(*rows, strict=True)]
    ]


async def _beside(traffic: Traffic, others: Runner | None, prompt: int) -> tuple[float, float]:
    """Mean seconds of plain requests while `others` are at work, and the others' tokens per second."""
    finished = 0

    async def go_on(runner: Runner) -> None:
        nonlocal finished
        while True:
            await runner.seconds(prompt)
            finished += runner.load.tokens

    async def one(asked: Ids) -> float:
        start = time.perf_counter()
        await traffic.plain(asked, _MIXED_TOKENS)
        return time.perf_counter() - start

    prompts = await traffic.prompts(_MIXED_PLAIN, prompt)
    tasks = [] if others is None else [asyncio.create_task(go_on(others)) for _ in range(_MIXED_OTHERS)]
    start = time.perf_counter()
    try:
        seconds = await asyncio.gather(*map(one, prompts))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return sum(seconds) / len(seconds), finished / (time.perf_counter() - start)


async def independent(traffic: Traffic, sizes: Sizes) -> AsyncIterator[list[Point]]:
    """(h) A block beside as many plain requests, each of as many tokens as the block has steps; and one of those."""
    binding = traffic.words.binding
    for width in sizes.widths:
        load = workload("", block(width, _BRANCH_TOKENS), binding, sizes.prompt)
        steps = workload("", [load.critical_path], binding, sizes.prompt)
        runners = [
            Runner.splice(traffic, load),
            Runner.sequential(traffic, load),
            replace(Runner.sequential(traffic, steps), way="one"),
            replace(Runner.sequential(traffic, steps, width), way="independent"),
        ]
        yield await race("independent", {"width": width}, runners, sizes)


async def replay(traffic: Traffic, sizes: Sizes) -> AsyncIterator[list[Point]]:
    """(g) The shapes of recorded answers, in sequence and forked."""
    binding = traffic.words.binding
    for load in recorded(sizes.transcripts, sizes.answers, sizes.scale, binding, sizes.prompt):
        runners = [Runner.splice(traffic, load), Runner.sequential(traffic, load)]
        yield await race("replay", {"answer": load.name}, runners, sizes)
