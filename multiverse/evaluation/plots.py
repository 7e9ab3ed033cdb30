"""The pictures of reports. matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multiverse.evaluation.samples import Sample
from multiverse.evaluation.scores import Score, group

Curve = tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]]
"""x, y, lower and upper bound."""


def figure(columns: int, height: float = 3.6) -> tuple[Any, Any]:
    """A figure with so many axes side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(1, columns, figsize=(4.4 * columns, height), squeeze=False, layout="constrained")
    for one in axes[0]:
        one.spines[["top", "right"]].set_visible(False)
    return drawn, axes[0]


def save(drawn: Any, path: Path) -> None:
    """Write a figure and forget it."""
    from matplotlib import pyplot

    drawn.savefig(path, dpi=110)
    pyplot.close(drawn)


def plot_samples(samples: Sequence[Sample], scores: Sequence[Score], path: Path) -> None:
    """Accuracy with intervals, parallel degree, and critical path against tokens, by task."""
    drawn, (accuracy, degrees, paths) = figure(3)
    names = [score.task for score in scores]
    errors = [[s.accuracy - s.low for s in scores], [s.high - s.accuracy for s in scores]]
    accuracy.errorbar(range(len(names)), [s.accuracy for s in scores], errors, fmt="o", capsize=4)
    accuracy.set(ylim=(0, 1), ylabel="pass@1, 95 % interval", xlim=(-0.6, len(names) - 0.4))
    accuracy.set_xticks(range(len(names)), names, rotation=20)
    for task, found in group(samples, "task").items():
        degrees.hist([s.parallel_degree for s in found], bins=30, histtype="step", label=task)
        paths.plot([s.tokens for s in found], [s.critical_path for s in found], ".", label=task)
    degrees.set(xlabel="tokens / critical path", ylabel="answers")
    most = max((s.tokens for s in samples), default=1)
    paths.plot([0, most], [0, most], color="0.8", linewidth=1, zorder=0)
    paths.set(xlabel="tokens", ylabel="critical path")
    degrees.legend(frameon=False, fontsize=8)
    save(drawn, path)


def plot_curves(panels: Mapping[str, Mapping[str, Curve]], ylabel: str, path: Path) -> None:
    """One panel per x axis (its label is the key), one line with its band per name."""
    drawn, axes = figure(len(panels))
    for one, (label, curves) in zip(axes, panels.items(), strict=True):
        for name, (x, y, low, high) in curves.items():
            (line,) = one.plot(x, y, ".-", label=name)
            one.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        one.set(xlabel=label, ylabel=ylabel, xscale="log")
    axes[0].legend(frameon=False, fontsize=8)
    save(drawn, path)
