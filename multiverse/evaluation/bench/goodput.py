"""Goodput: requests per second that were served in time, by the policy that admits branches, on the same arrivals."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from multiverse.decoding.shaped import Shape
from multiverse.errors import RunError
from multiverse.evaluation.bench.metrics import histogram
from multiverse.evaluation.bench.points import Point
from multiverse.evaluation.bench.race import Sizes
from multiverse.evaluation.bench.traffic import Traffic
from multiverse.evaluation.bench.workloads import Workload, recorded, workload
from multiverse.evaluation.plan.goodput import WATCHING, per_second
from multiverse.evaluation.plan.mix import PLAIN, Made, make_up
from multiverse.structure.binding import Binding

NAME = "goodput"
RECORDED, ALL = "recorded", "all"
_ALONE = 80
"""Tokens of a plain answer that is alone on the server."""
_UNLOADED = 5
"""Plain answers, one after the other, by which an unloaded server is known."""


@dataclass(frozen=True)
class Asked:
    """A request: `arrival` seconds after the first could come, an answer of `load`, and what kind it is of."""

    arrival: float
    kind: str
    load: Workload


@dataclass(frozen=True)
class Served:
    """What came of it: seconds from its arrival to the first token, and to the last."""

    asked: Asked
    first: float
    last: float

    @property
    def ended(self) -> float:
        """Seconds after the first could come."""
        return self.asked.arrival + self.last

    @property
    def tpot(self) -> float:
        """Seconds per token behind the first."""
        return (self.last - self.first) / max(1, self.asked.load.tokens - 1)


def arrivals(rate: float, span: float, file: str | None, rng: Random) -> list[float]:
    """Times within `span` seconds, `rate` per second on the average.

    Args:
        file: recorded times, one a line, in seconds: their gaps are scaled to `rate`, and come again behind the last.
            Without it they come at random (Poisson).

    Raises:
        RunError: if there are no times in it.
    """
    gaps = [1.0]
    if file is not None:
        try:
            times = sorted(map(float, Path(file).read_text(encoding="utf-8").split()))
        except (OSError, ValueError) as error:
            raise RunError(f"{file}: holds no times, one a line ({error})") from error
        if len(times) < 2 or times[-1] == times[0]:
            raise RunError(f"{file}: holds no two different times")
        mean = (times[-1] - times[0]) / (len(times) - 1)
        gaps = [(b - a) / mean for a, b in pairwise(times)]
    found, at, number = [], 0.0, 0
    while (at := at + (gaps[number % len(gaps)] / rate if file else rng.expovariate(rate))) <= span:
        found.append(at)
        number += 1
    return found


def trace(rate: float, sizes: Sizes, binding: Binding, seed: int) -> list[Asked]:
    """Requests of about `sizes.span` seconds, a share of them with blocks: made up, or of recorded shapes."""
    rng = Random(seed)
    if sizes.transcripts:
        known = recorded(sizes.transcripts, sizes.answers, sizes.scale, binding, sizes.prompt)
    found = []
    for at in arrivals(rate, sizes.span, sizes.arrivals, rng):
        made = make_up(rng, sizes.share)
        if made.branches and sizes.transcripts:
            found.append(Asked(at, RECORDED, rng.choice(known)))
        else:
            found.append(Asked(at, made.kind, workload(made.kind, _shape(made), binding, sizes.prompt)))
    return found


def _shape(made: Made) -> Shape:
    return [made.before, [[length] for length in made.branches], made.behind] if made.branches else [made.before]


async def unloaded(traffic: Traffic, sizes: Sizes) -> float:
    """Seconds per token of a plain answer that is alone on the server."""
    load = workload(PLAIN, [_ALONE], traffic.words.binding, sizes.prompt)
    found = [(await _serve(traffic, [Asked(0.0, PLAIN, load)], sizes.prompt))[0].tpot for _ in range(_UNLOADED)]
    return statistics.median(found)


async def goodput(servers: Mapping[str, Traffic], slo: float, sizes: Sizes) -> AsyncIterator[list[Point]]:
    """(j) The same requests at the same times, to servers with each policy in turn.

    Args:
        servers: by policy.
        slo: seconds per token behind the first that every request is promised.
    """
    for turn, rate in enumerate(sizes.rates):
        names = list(servers)
        found: dict[str, Point] = {}
        asked = trace(rate, sizes, next(iter(servers.values())).words.binding, turn)
        if not asked:
            raise RunError(f"nobody comes within {sizes.span:g} s at {rate:g} requests per second")
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            served = await _serve(servers[name], asked, sizes.prompt)
            seconds = time.perf_counter() - start
            more: dict[str, Any] = {"slo_ms": 1000 * slo, "kinds": summary(served, slo, sizes.span)}
            if name == WATCHING:
                more["step_time_error"] = step_time_error(servers[name])
            size = (sizes.prompt, sum(a.load.tokens for a in asked), sum(a.load.critical_path for a in asked))
            found[name] = Point(NAME, name, {"rate": rate}, len(asked), *size, [seconds], more=more)
        yield [found[name] for name in names]


async def _serve(traffic: Traffic, asked: Sequence[Asked], prompt: int) -> list[Served]:
    """All answers; each request is made when it is time, whoever is being served."""
    prompts = traffic.new_prompts(len(asked), prompt)
    start = time.perf_counter()

    async def one(request: Asked, ids: Sequence[int]) -> Served:
        await asyncio.sleep(max(0.0, start + request.arrival - time.perf_counter()))
        asked_at = time.perf_counter()
        first, last = await traffic.streamed(ids, request.load)
        return Served(request, first - asked_at, last - asked_at)

    return await asyncio.gather(*map(one, asked, prompts))


def summary(served: Sequence[Served], slo: float, span: float) -> dict[str, dict[str, float]]:
    """By kind, and of all: how many, what share in time, and what they took."""
    found = {}
    for kind in (ALL, *sorted({one.asked.kind for one in served})):
        mine = [one for one in served if kind in (ALL, one.asked.kind)]
        met = [one for one in mine if one.tpot <= slo]
        tpots = sorted(1000 * one.tpot for one in mine)
        found[kind] = {
            "requests": len(mine),
            "met": len(met),
            "attainment": len(met) / len(mine),
            "goodput": per_second((one.ended for one in met), span),
            "tpot_ms": statistics.median(tpots),
            "tpot_ms_p95": tpots[min(len(tpots) - 1, int(0.95 * len(tpots)))],
            "ttft_ms": 1000 * statistics.median(one.first for one in mine),
            "latency_s": statistics.mean(one.last for one in mine),
        }
    return found


def step_time_error(traffic: Traffic) -> float:
    """The mean |predicted / measured - 1| of all steps that the server has predicted so far."""
    total, number = histogram(traffic.url, "multiverse:step_time_error")
    return total / number
