"""Branching against decoding the same tokens in sequence, over batch sizes or rates: where does it stop paying?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from multiverse.evaluation.plan.machine import Roofline
from multiverse.evaluation.plan.shapes import Shape, binned
from multiverse.evaluation.plan.simulate import Load, Served, simulate

PAYS = 1.05
"""The least speed-up that is worth it."""
_PER_SLOT, _LEAST = 6, 64


@dataclass(frozen=True)
class Row:
    """One batch size, or one arrival rate.

    Attributes:
        at: requests under way, or arrivals per second.
        degree: tokens / critical path of all answers.
        branching, sequential: milliseconds per token of an answer, median.
        p95: of the seconds of an answer, branching and sequential.
        speedup: sequential / branching.
        throughput: tokens per second of the server, branching and sequential.
    """

    at: float
    degree: float
    branching: float
    sequential: float
    p95: tuple[float, float]
    speedup: float
    throughput: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)


def over_batch(
    shapes: Sequence[Shape], roofline: Roofline, batches: Sequence[int], requests: int = 0, seed: int = 0
) -> list[Row]:
    """A server with so many requests under way at all times, for each batch size; at least `requests` answers each."""
    rows = []
    for batch in batches:
        count = max(requests, _PER_SLOT * batch, _LEAST)
        rows.append(_row(batch, shapes, roofline, Load(np.array([batch]), count), seed))
    return rows


def over_rate(
    shapes: Sequence[Shape], roofline: Roofline, rates: Sequence[float], slots: int, requests: int = 2000, seed: int = 0
) -> list[Row]:
    """A server to which requests come at random, so many per second, and that works on `slots` at once."""
    return [_row(rate, shapes, roofline, Load(np.array([slots]), requests, np.array([rate])), seed) for rate in rates]


def stops_paying(rows: Sequence[Row]) -> float | None:
    """The first batch size or rate from which on branching gains less than `PAYS`; `None` if it always pays."""
    for i, row in enumerate(rows):
        if all(later.speedup < PAYS for later in rows[i:]):
            return row.at
    return None


def _row(at: float, shapes: Sequence[Shape], roofline: Roofline, load: Load, seed: int) -> Row:
    branching = simulate(binned(shapes), roofline, load, seed)
    sequential = simulate(binned([shape.sequential() for shape in shapes]), roofline, load, seed)
    ours, theirs = (1000 * float(served.per_token[0]) for served in (branching, sequential))
    degree = sum(shape.tokens for shape in shapes) / sum(len(shape.width) for shape in shapes)
    return Row(
        at=at,
        degree=degree,
        branching=ours,
        sequential=theirs,
        p95=(_p95(branching), _p95(sequential)),
        speedup=theirs / ours,
        throughput=(float(branching.throughput[0]), float(sequential.throughput[0])),
    )


def _p95(served: Served) -> float:
    return float(np.quantile(served.latency, 0.95))
