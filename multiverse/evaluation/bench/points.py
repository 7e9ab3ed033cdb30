"""What was measured: points, each a case with the seconds of every repeat; and what is computed from them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Median, least and most of some values."""

    median: float
    least: float
    most: float

    def text(self, digits: int = 2) -> str:
        """For a table."""
        return f"{self.median:.{digits}f} ({self.least:.{digits}f} to {self.most:.{digits}f})"


def spread(values: Iterable[float]) -> Spread:
    """Of at least one value."""
    known = list(values)
    return Spread(statistics.median(known), min(known), max(known))


@dataclass(frozen=True)
class Point:
    """One case of one experiment.

    Attributes:
        experiment: its name.
        way: what was raced: `sequential`, `splice`, `client`, or what the experiment calls it.
        case: what is the same for all that were raced against each other, such as `{"width": 4, "length": 64}`.
        batch: requests at once.
        prompt, tokens, critical_path: of one answer.
        seconds: until the last of them was answered, one value per repeat.
        runs: an answer's shape in short (`plan.shapes.Shape.runs`); empty where it doesn't matter.
        more: further measured values.
    """

    experiment: str
    way: str
    case: dict[str, Any]
    batch: int
    prompt: int
    tokens: int
    critical_path: int
    seconds: list[float]
    runs: list[list[float]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)

    @property
    def bound(self) -> float:
        """The speed-up that the answer would have if every position took the same time."""
        return self.tokens / self.critical_path

    @property
    def per_token(self) -> Spread:
        """Milliseconds per token of one answer."""
        return spread(1000 * seconds / self.tokens for seconds in self.seconds)


def ratio(numerator: Point, denominator: Point) -> Spread:
    """Of the seconds of two points that were raced against each other, repeat by repeat."""
    return spread(a / b for a, b in zip(numerator.seconds, denominator.seconds, strict=True))


@dataclass(frozen=True)
class Race:
    """The points of one case, by way."""

    case: dict[str, Any]
    ways: dict[str, Point]

    def ratio(self, numerator: str, denominator: str) -> Spread:
        """Of the seconds of two ways."""
        return ratio(self.ways[numerator], self.ways[denominator])


def races(points: Sequence[Point], experiment: str) -> list[Race]:
    """The points of an experiment, case by case, in the order in which they were measured."""
    found: list[Race] = []
    for point in points:
        if point.experiment != experiment:
            continue
        known = next((race for race in found if race.case == point.case), None)
        if known is None:
            known = Race(point.case, {})
            found.append(known)
        known.ways[point.way] = point
    return found


def ahead_from(lengths: Sequence[int], gains: Sequence[float]) -> int | None:
    """The least length from which on every gain is above 1; `None` if the last is not."""
    best = None
    for length, gain in sorted(zip(lengths, gains, strict=True), reverse=True):
        if gain <= 1:
            break
        best = length
    return best
