"""Runs side by side, problem by problem: the first is what the others are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from multiverse.errors import RunError
from multiverse.evaluation.intervals import mean_interval, paired_p
from multiverse.evaluation.results import Results, table
from multiverse.evaluation.samples import Sample
from multiverse.evaluation.scores import group


@dataclass(frozen=True)
class Comparison:
    """One run against the first on the problems of a task that both have.

    Attributes:
        accuracy: of both on those problems.
        difference, low, high: second minus first, with its 95 % interval over problems.
        p: of the paired test that there is no difference.
        better, worse: problems on which the second does better or worse.
        tokens, critical_path, seconds: second / first, means over those problems; `None` where one is unknown.
        parallel_degree: of both.
    """

    task: str
    runs: tuple[str, str]
    problems: int
    accuracy: tuple[float, float]
    difference: float
    low: float
    high: float
    p: float
    better: int
    worse: int
    tokens: float | None
    critical_path: float | None
    seconds: float | None
    parallel_degree: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)


def compare(runs: Sequence[Results]) -> list[Comparison]:
    """Every run against the first.

    Raises:
        RunError: if there is nothing in common, or a task of the same name has other problems.
    """
    first, rows = runs[0], []
    for other in runs[1:]:
        for task, samples in group(first.samples, "task").items():
            theirs = [sample for sample in other.samples if sample.task == task]
            if theirs:
                _check_same(first, other, task)
                rows += _pair(task, (first.name, other.name), samples, theirs)
    if not rows:
        raise RunError(f"{' and '.join(run.name for run in runs)} have no problem in common")
    return rows


def _check_same(first: Results, other: Results, task: str) -> None:
    sums = first.checksum(task), other.checksum(task)
    if None not in sums and sums[0] != sums[1]:
        raise RunError(f"task {task}: {first.name} and {other.name} were run on different problems")


def _pair(task: str, names: tuple[str, str], ours: Sequence[Sample], theirs: Sequence[Sample]) -> list[Comparison]:
    pairs = group(ours, "id"), group(theirs, "id")
    common = [id_ for id_ in pairs[0] if id_ in pairs[1]]
    if not common:
        return []
    kept = [[sample for id_ in common for sample in side[id_]] for side in pairs]
    shares = [[sum(s.correct for s in side[id_]) / len(side[id_]) for id_ in common] for side in pairs]
    differences = [b - a for a, b in zip(*shares, strict=True)]
    return [
        Comparison(
            task=task,
            runs=names,
            problems=len(common),
            accuracy=(sum(shares[0]) / len(common), sum(shares[1]) / len(common)),
            difference=sum(differences) / len(common),
            **dict(zip(("low", "high"), mean_interval(differences), strict=True)),
            p=paired_p(differences),
            better=sum(d > 0 for d in differences),
            worse=sum(d < 0 for d in differences),
            tokens=_ratio(kept, "tokens"),
            critical_path=_ratio(kept, "critical_path"),
            seconds=_ratio(kept, "seconds"),
            parallel_degree=(_degree(kept[0]), _degree(kept[1])),
        )
    ]


def _ratio(kept: Sequence[Sequence[Sample]], name: str) -> float | None:
    first, second = (sum(getattr(s, name) for s in side) / len(side) for side in kept)
    return second / first if first and second else None


def _degree(samples: Sequence[Sample]) -> float:
    return sum(s.tokens for s in samples) / max(1, sum(s.critical_path for s in samples))


def comparison_table(rows: Sequence[Comparison]) -> str:
    """Markdown."""
    head = ("task", "runs", "problems", "pass@1 %", "difference (95 %)", "p", "better, worse")
    return table(
        (*head, "#parallel", "critical path ratio", "tokens ratio", "seconds ratio"),
        [
            (
                row.task,
                " → ".join(row.runs),
                row.problems,
                " → ".join(f"{100 * share:.1f}" for share in row.accuracy),
                f"{100 * row.difference:+.1f} ({100 * row.low:+.1f} to {100 * row.high:+.1f})",
                f"{row.p:.3f}",
                f"{row.better}, {row.worse}",
                " → ".join(f"{degree:.2f}" for degree in row.parallel_degree),
                *("" if x is None else f"{x:.2f}" for x in (row.critical_path, row.tokens, row.seconds)),
            )
            for row in rows
        ],
    )
