"""Budget control: the accuracy that is left when answers are cut at a budget of critical path, or of tokens.

A cut changes nothing before it, so one run gives the whole curve: an answer counts if it ended within the budget and is
right. It is what a server with that `max_critical_path` or `max_tokens` gives, except that such a server may decide
not to fork where the budget is nearly used up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from multiverse.evaluation.intervals import share_interval
from multiverse.evaluation.plots import plot_curves
from multiverse.evaluation.results import Results, table
from multiverse.evaluation.samples import Sample
from multiverse.evaluation.scores import group

Budget = Literal["critical_path", "tokens"]
LABELS = {"critical_path": "critical-path budget (positions)", "tokens": "token budget"}
POINTS = 12


@dataclass(frozen=True)
class Point:
    """Accuracy of a run on a task within a budget, with its 95 % interval."""

    run: str
    task: str
    kind: Budget
    budget: int
    accuracy: float
    low: float
    high: float


def budgets(runs: Sequence[Results], kind: Budget) -> list[int]:
    """Budgets worth looking at: from the shortest answer of all runs to the longest, evenly on a log scale."""
    used = [getattr(sample, kind) for run in runs for sample in run.samples if getattr(sample, kind)]
    low, high = min(used), max(used)
    return sorted({round(value) for value in np.geomspace(low, high, POINTS)})


def curves(runs: Sequence[Results]) -> list[Point]:
    """Every run on every task at every budget of both kinds."""
    points = []
    for kind in get_args(Budget):
        for budget in budgets(runs, kind):
            for run in runs:
                tasks = group(run.samples, "task")
                points += [_point(run.name, task, found, kind, budget) for task, found in tasks.items()]
    return points


def _point(run: str, task: str, samples: Sequence[Sample], kind: Budget, budget: int) -> Point:
    by_problem = group(samples, "id").values()
    right = [[s.correct and getattr(s, kind) <= budget for s in found] for found in by_problem]
    return Point(run, task, kind, budget, *share_interval(right))


def budget_table(points: Sequence[Point]) -> str:
    """Markdown: one row per task and budget, one column per run."""
    names = list(dict.fromkeys(point.run for point in points))
    cells = {(p.task, p.kind, p.budget, p.run): f"{100 * p.accuracy:.1f}" for p in points}
    rows = dict.fromkeys((p.task, p.kind, p.budget) for p in points)
    body = [(*row[:1], LABELS[row[1]], f"{row[2]:,}", *(cells.get((*row, name), "") for name in names)) for row in rows]
    return table(("task", "budget", "at most", *(f"{name}: pass@1 %" for name in names)), body)


def plot_budgets(points: Sequence[Point], path: Path) -> None:
    """Both budgets side by side, a line per run and task."""
    panels = {}
    for kind in get_args(Budget):
        lines: dict[str, list[Point]] = {}
        for point in points:
            if point.kind == kind:
                lines.setdefault(f"{point.run}, {point.task}", []).append(point)
        panels[LABELS[kind]] = {
            name: ([p.budget for p in line], [p.accuracy for p in line], [p.low for p in line], [p.high for p in line])
            for name, line in lines.items()
        }
    plot_curves(panels, "pass@1", path)
