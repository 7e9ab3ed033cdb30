"""A race: ways to do the same work in turn, with new prompts every time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multiverse.evaluation.bench.points import Point
from multiverse.evaluation.bench.traffic import Ids, Traffic
from multiverse.evaluation.bench.workloads import Workload

Way = Callable[[Ids], Awaitable[Any]]
"""Does the work of one request behind a prompt."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        repeats: of everything.
        prompt: tokens of a prompt.
        tokens: of answers, for latency against parallel degree.
        widths: of blocks.
        batches: requests at once.
        lengths: of branches, for the three ways.
        prefixes: tokens that branches share.
        transcripts, answers, scale: files with recorded answers, how many of them, and what their lengths are
            multiplied by.
        rates, span, arrivals: requests per second, for how many seconds, and a file with recorded times of such.
        share: of them that have blocks.
        slo: what every request is promised, in times per token of an unloaded server.
        questions: a file of those that are asked while drafts are measured.
    """

    repeats: int = 3
    prompt: int = 64
    tokens: Sequence[int] = (256, 512, 1024)
    widths: Sequence[int] = (2, 4, 8, 16)
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128)
    lengths: Sequence[int] = (16, 64, 256)
    prefixes: Sequence[int] = (512, 2048, 8192)
    transcripts: Sequence[str] = ()
    answers: int = 10
    scale: float = 1.0
    rates: Sequence[float] = ()
    span: float = 60.0
    arrivals: str | None = None
    share: float = 0.8
    slo: float = 2.5
    questions: str | None = None


@dataclass(frozen=True)
class Runner:
    """One that is raced: what it is called, what it does, on which server, and what of the case is its own."""

    way: str
    work: Way
    traffic: Traffic
    load: Workload
    batch: int = 1
    case: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def splice(cls, traffic: Traffic, load: Workload, batch: int = 1) -> Runner:
        """The server forks."""
        return cls("splice", lambda prompt: traffic.splice(prompt, load), traffic, load, batch)

    @classmethod
    def sequential(cls, traffic: Traffic, load: Workload, batch: int = 1) -> Runner:
        """The same tokens, one after the other."""
        return cls("sequential", lambda prompt: traffic.sequential(prompt, load), traffic, load, batch)

    @classmethod
    def client(cls, traffic: Traffic, load: Workload) -> Runner:
        """The client forks."""
        return cls("client", lambda prompt: traffic.client(prompt, load), traffic, load)

    async def seconds(self, prompt: int) -> float:
        """Of one batch, its prompts being known to the server."""
        prompts = await self.traffic.prompts(self.batch, prompt)
        start = self.traffic.clock()
        await asyncio.gather(*map(self.work, prompts))
        return self.traffic.clock() - start

    def point(self, experiment: str, case: Mapping[str, Any], prompt: int, seconds: list[float], **more: Any) -> Point:
        """What came of it."""
        steps = self.load.steps if self.way == "splice" else self.load.steps.sequential()
        size = (self.batch, prompt, steps.tokens, len(steps.width))
        return Point(experiment, self.way, {**case, **self.case}, *size, seconds, steps.runs(), more)


async def race(experiment: str, case: Mapping[str, Any], runners: Sequence[Runner], sizes: Sizes) -> list[Point]:
    """All runners in turn, as often as `sizes` says, each time another one first."""
    seconds: list[list[float]] = [[] for _ in runners]
    for repeat in range(sizes.repeats):
        for turn in range(len(runners)):
            at = (repeat + turn) % len(runners)
            seconds[at].append(await runners[at].seconds(sizes.prompt))
    return [r.point(experiment, case, sizes.prompt, found) for r, found in zip(runners, seconds, strict=True)]
