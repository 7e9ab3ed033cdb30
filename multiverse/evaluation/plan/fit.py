"""A machine from measurements: fitted to half of what `multiverse bench` found, tried on the other half."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from multiverse.errors import RunError
from multiverse.evaluation.plan.machine import Machine, Model, Roofline
from multiverse.evaluation.plan.shapes import Shape, binned
from multiverse.evaluation.plan.simulate import Load, simulate
from multiverse.harness.settings import check_settings

_WAYS = ("sequential", "splice")
_EXPERIMENTS = ("degree", "batch", "ways", "replay")
_CEILINGS = ("--max-num-seqs", "--max-running-requests")
_FITTED = ("bandwidth", "flops", "overhead", "per_sequence")
_LEAST = 8
"""Points without which there is nothing to fit."""


@dataclass(frozen=True)
class Measured:
    """`batch` answers of one shape at the same time, and the seconds until the last was there (median)."""

    name: str
    shape: Shape
    batch: int
    seconds: float


@dataclass(frozen=True)
class Bench:
    """What is needed of the results of `multiverse bench`."""

    machine: Machine
    model: Model
    points: list[Measured]

    def halves(self) -> tuple[list[Measured], list[Measured]]:
        """Every other point, and the rest."""
        return self.points[::2], self.points[1::2]


@dataclass(frozen=True)
class Fit:
    """A fitted machine, and points that it was not fitted to with what it predicts for them."""

    machine: Machine
    tried: list[tuple[Measured, float]]

    @property
    def errors(self) -> list[float]:
        """|predicted / measured - 1| of each."""
        return [abs(predicted / point.seconds - 1) for point, predicted in self.tried]

    @property
    def median_error(self) -> float:
        """Of those."""
        return statistics.median(self.errors)


def read_bench(path: Path, model: Model | None = None) -> Bench:
    """Read the file that `multiverse bench` writes.

    Args:
        model: that was served, if the file doesn't describe it.

    Raises:
        RunError: if it is not such a file, or holds too little.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        points = [_measured(point) for point in data["points"] if _counts(point)]
        arguments = data["server"].get("arguments", [])
        about = {"name": "fitted", "bandwidth": 1.0, "flops": 1.0, "memory": data["machine"]["memory"]}
        machine = check_settings({**about, "max_sequences": _ceiling(arguments)}, Machine, str(path))
        known = data["model"]
    except OSError as error:
        raise RunError(f"{path}: can't be read ({error.strerror})") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: is not what `multiverse bench` writes ({error!r})") from error
    if len(points) < _LEAST:
        raise RunError(f"{path}: has {len(points)} points to fit to, {_LEAST} are needed ({', '.join(_EXPERIMENTS)})")
    return Bench(machine, model or check_settings(known, Model, f"{path}, model"), points)


def _counts(point: dict[str, Any]) -> bool:
    return point["experiment"] in _EXPERIMENTS and point["way"] in _WAYS


def _measured(point: dict[str, Any]) -> Measured:
    case = ", ".join(f"{name} {value}" for name, value in point["case"].items())
    shape = Shape.from_runs(point["runs"], point["prompt"])
    name = f"{point['experiment']} ({case}) {point['way']}"
    return Measured(name, shape, point["batch"], statistics.median(point["seconds"]))


def _ceiling(arguments: Sequence[str]) -> int:
    """How many sequences a step holds, if the server was told."""
    for name, value in itertools.pairwise(arguments):
        if name in _CEILINGS:
            return int(value)
    return int(Machine.model_fields["max_sequences"].default)


def predict(machine: Machine, model: Model, point: Measured) -> float:
    """The seconds that a simulated server takes for a point; prompts are in its prefix cache."""
    load = Load(np.array([point.batch]), point.batch, cached=True)
    return float(simulate(binned([point.shape]), Roofline(machine, model), load).seconds[0])


def fit(bench: Bench, given: Sequence[Measured], tried: Sequence[Measured]) -> Fit:
    """Fit bandwidth, FLOP/s and overheads to the points `given`, by the relative error, and predict those `tried`.

    The best of several starts is taken, for a step is the longer of two times, which makes hills.
    """

    def machine(logs: Any) -> Machine:
        fitted = dict(zip(_FITTED, map(float, np.exp(logs)), strict=True))
        return bench.machine.model_copy(update={**fitted, "memory_efficiency": 1.0, "compute_efficiency": 1.0})

    def residuals(logs: Any) -> list[float]:
        line = Roofline(machine(logs), bench.model)
        sums = (line.step(p.batch * p.shape.width, p.batch * p.shape.read).sum() for p in given)
        return [float(np.log(total / point.seconds)) for total, point in zip(sums, given, strict=True)]

    runs = [least_squares(residuals, start, loss="soft_l1", f_scale=0.1) for start in _starts(bench.model, given)]
    best = machine(min(runs, key=lambda run: run.cost).x)
    return Fit(best, [(point, predict(best, bench.model, point)) for point in tried])


def _starts(model: Model, given: Sequence[Measured]) -> list[Any]:
    """Logarithms of `_FITTED`: half of a step is overhead, or little; wide steps are bound by computing, or not."""
    step = min(point.seconds / len(point.shape.width) for point in given)
    reading, computing = model.parameters * model.weight_bytes / step, 2 * model.parameters / step
    starts = itertools.product((1.2, 2.0), (4.0, 40.0), (0.1, 0.5), (0.01, 0.1))
    return [np.log([reading * b, computing * c, step * o, step * each]) for b, c, o, each in starts]
