"""A whole benchmark: every experiment that is asked for, its results written as soon as they are there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from multiverse.errors import RunError
from multiverse.evaluation.bench import drafts, experiments
from multiverse.evaluation.bench import goodput as goods
from multiverse.evaluation.bench.facts import facts, model_figures
from multiverse.evaluation.bench.hosts import Served, running, started, words_of
from multiverse.evaluation.bench.points import Point
from multiverse.evaluation.bench.prefix import NAME, measured, prefix
from multiverse.evaluation.bench.race import Sizes
from multiverse.evaluation.bench.report import write_report
from multiverse.evaluation.bench.traffic import PLAIN, Traffic
from multiverse.evaluation.plan.goodput import POLICIES, WATCHING
from multiverse.evaluation.results import replace
from multiverse.harness.questions import read_questions
from multiverse.models.task import HELD_OUT_SEED, stream
from multiverse.serving.sharing import ALWAYS, NEVER

RESULTS = "bench.json"
Say = Callable[[str], None]
"""Told what is being done."""


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        url: of a server that runs; else `host` is started.
        model: its name on the hub or its directory; of a server that runs only if it doesn't tell.
        more: further arguments for the host.
        names: of the experiments.
        cpu: measure the CPU time of the server that is started, not what passes at the client.
    """

    output: Path
    command: str
    url: str | None
    host: str
    model: str | None
    more: Sequence[str]
    names: Sequence[str]
    sizes: Sizes
    cpu: bool = False


@dataclass
class Results:
    """What was measured so far, and where it goes."""

    about: dict[str, Any]
    points: list[Point] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def write(self, output: Path) -> None:
        """JSON, Markdown and plots."""
        output.mkdir(parents=True, exist_ok=True)
        data = {**self.about, "left_out": self.left_out, "points": [point.to_dict() for point in self.points]}
        if any(point.experiment == NAME for point in self.points):
            data[NAME] = measured(self.points, self.about["model"])
        if any(point.experiment == drafts.NAME for point in self.points):
            data[drafts.NAME] = str(drafts.measured(self.points))
        replace(output / RESULTS, json.dumps(data, indent=1) + "\n")
        write_report(output, self.about, self.points, self.left_out)


def bench(plan: Plan, say: Say) -> Results:
    """Measure. What one experiment can't do on this server is told in the results; the others go on.

    Raises:
        RunError: if nothing can be measured.
    """
    with ExitStack() as stack:
        if plan.url:
            server = running(plan.url, plan.model)
        else:
            assert plan.model is not None
            say(f"starting {plan.host}")
            server = stack.enter_context(started(plan.host, plan.model, plan.more, cpu=plan.cpu))
        results = Results(_about(plan, server))
        asyncio.run(_measure(plan, server, results, say))
    if not results.points:
        raise RunError("; ".join(f"{name}: {why}" for name, why in results.left_out.items()))
    return results


def _about(plan: Plan, server: Served) -> dict[str, Any]:
    return {
        "command": plan.command,
        "server": {"url": server.url} if plan.url else {"host": plan.host, "arguments": list(server.arguments)},
        "plain": "one server, the request field on and off" if plan.url else "two servers, with and without the plugin",
        "model": model_figures(server.path, server.dtype) or {"name": server.model},
        "machine": facts(),
        "clock": "CPU time of the server's processes" if plan.cpu else "wall-clock time at the client",
        "sizes": asdict(plan.sizes),
    }


async def _measure(plan: Plan, server: Served, results: Results, say: Say) -> None:
    traffic = Traffic(server.url, server.model, words_of(server.path), server.clock)
    try:
        if list(plan.names) != [drafts.NAME]:
            await experiments.warm_up(traffic, plan.sizes)
        for name in plan.names:
            say(name)
            pairs = {"plain": _plain, NAME: _prefix, goods.NAME: _goodput, drafts.NAME: _drafts}
            found = pairs[name](plan, traffic) if name in pairs else getattr(experiments, name)(traffic, plan.sizes)
            try:
                async for points in found:
                    results.points += points
                    results.write(plan.output)
            except RunError as error:
                results.left_out[name] = str(error)
                say(f"{name} is left out: {error}")
    finally:
        await traffic.close()
    results.write(plan.output)


async def _plain(plan: Plan, traffic: Traffic) -> AsyncIterator[list[Point]]:
    """A server with the plugin and one without; of one that isn't ours, requests with the field on and off."""
    if plan.url:
        async for points in experiments.plain({"with": (traffic, {}), "without": (traffic, PLAIN)}, plan.sizes):
            yield points
        return
    assert plan.model is not None
    async with AsyncExitStack() as stack:  # both are new: the one that was measured so far has its history
        pair: dict[str, tuple[Traffic, dict[str, Any]]] = {}
        for way, plugin in (("with", True), ("without", False)):
            server = stack.enter_context(started(plan.host, plan.model, plan.more, plugin, plan.cpu))
            client = Traffic(server.url, server.model, traffic.words, server.clock)
            stack.push_async_callback(client.close)
            pair[way] = (client, {})
        async for points in experiments.plain(pair, plan.sizes):
            yield points


async def _prefix(plan: Plan, traffic: Traffic) -> AsyncIterator[list[Point]]:
    """Two servers whose attention backend is ours, or around the host's own: one shares, the other doesn't."""
    if plan.url:
        raise RunError("prefix starts two servers with attention of this plugin: --host, not --url")
    assert plan.model is not None
    if model_figures(plan.model, None) is None:
        raise RunError(f"how many KV heads {plan.model} has is not known; name the directory of a checkpoint")
    async with AsyncExitStack() as stack:
        pair = {}
        for way in (ALWAYS, NEVER):
            more = (*plan.more, "--multiverse-shared-prefix", way)
            server = stack.enter_context(started(plan.host, plan.model, more, cpu=plan.cpu))
            pair[way] = Traffic(server.url, server.model, traffic.words, server.clock)
            stack.push_async_callback(pair[way].close)
        async for points in prefix(pair, plan.sizes):
            yield points


async def _goodput(plan: Plan, traffic: Traffic) -> AsyncIterator[list[Point]]:
    """The server that was started serves eagerly; one more for each other policy."""
    if plan.url or plan.cpu:
        raise RunError("goodput starts a server for each policy, and is wall-clock time")
    assert plan.model is not None
    slo = plan.sizes.slo * await goods.unloaded(traffic, plan.sizes)
    promise = ("--multiverse-tpot-slo-ms", f"{1000 * slo:.3f}")
    async with AsyncExitStack() as stack:
        servers = {POLICIES[0]: traffic}
        for policy in POLICIES[1:]:
            more = (*plan.more, "--multiverse-admission", policy, *(promise if policy == WATCHING else ()))
            server = stack.enter_context(started(plan.host, plan.model, more))
            servers[policy] = Traffic(server.url, server.model, traffic.words)
            stack.push_async_callback(servers[policy].close)
            await experiments.warm_up(servers[policy], plan.sizes)
        async for points in goods.goodput(servers, slo, plan.sizes):
            yield points


async def _drafts(plan: Plan, traffic: Traffic) -> AsyncIterator[list[Point]]:
    """With the questions of a file again and again, or new ones for the embedded model."""
    given = plan.sizes.questions
    questions = cycle(read_questions(given)) if given else (problem.prompt for problem in stream(HELD_OUT_SEED))
    async for points in drafts.drafts(traffic, questions, plan.sizes):
        yield points
