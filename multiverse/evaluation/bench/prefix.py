"""Decode steps of branches behind a prefix, shared and not: the table by which an attention backend decides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from multiverse.errors import RunError
from multiverse.evaluation.bench.points import Point, races
from multiverse.evaluation.bench.race import Runner, Sizes
from multiverse.evaluation.bench.traffic import Traffic
from multiverse.evaluation.bench.workloads import block, workload
from multiverse.serving.sharing import ALWAYS, NEVER

NAME = "prefix"
_FEW, _STEPS = 8, 32
"""Tokens of each branch, and how many more a longer answer has: what the two differ by are decode steps alone."""


async def prefix(pair: Mapping[str, Traffic], sizes: Sizes) -> AsyncIterator[list[Point]]:
    """(i) Steps of `width` branches behind `shared` tokens, read once and by each.

    Args:
        pair: by the setting of `--multiverse-shared-prefix`, a client of a server with it.
    """
    for shared in sizes.prefixes:
        for width in sizes.widths:
            seconds: dict[str, list[float]] = {way: [] for way in pair}
            for repeat in range(sizes.repeats):
                for way in sorted(pair, reverse=bool(repeat % 2)):
                    seconds[way].append(await _steps(pair[way], width, shared))
            case, size = {"width": width, "shared": shared}, (1, shared, width * _STEPS, _STEPS)
            yield [Point(NAME, way, case, *size, found) for way, found in seconds.items()]


async def _steps(traffic: Traffic, width: int, shared: int) -> float:
    """Seconds that `_STEPS` more steps take."""
    loads = [workload("", block(width, tokens), traffic.words.binding, shared) for tokens in (_FEW, _FEW + _STEPS)]
    few, more = [await Runner.splice(traffic, load).seconds(shared) for load in loads]
    if more <= few:
        raise RunError(f"{_STEPS} more steps of {width} branches took no time: the machine is too busy to tell")
    return more - few


def measured(points: Sequence[Point], model: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table, by `multiverse.serving.sharing`."""
    return [
        {**race.case, "kv_heads": model["kv_heads"], "ratio": round(race.ratio(ALWAYS, NEVER).median, 3)}
        for race in races(points, NAME)
    ]
