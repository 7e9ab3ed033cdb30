"""Goodput as a table, as CSV and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from multiverse.evaluation.bench.goodput import ALL, NAME
from multiverse.evaluation.bench.points import Point, Race, races
from multiverse.evaluation.plan.goodput import POLICIES, WARM, WATCHING
from multiverse.evaluation.plots import figure, save
from multiverse.evaluation.results import replace, table

CSV, PLOT = "goodput.csv", "goodput.png"


def section(points: Sequence[Point]) -> str:
    """For the report: what was served in time, rate by rate and policy by policy."""
    rows = []
    for race in races(points, NAME):
        for policy, point in race.ways.items():
            found = point.more["kinds"][ALL]
            kinds = ", ".join(f"{n} {k['attainment']:.0%}" for n, k in point.more["kinds"].items() if n != ALL)
            served = f"{found['goodput']:.2f}", f"{gain(race, policy):.2f}", f"{found['attainment']:.0%}", kinds
            times = f"{found['tpot_ms']:.0f}, {found['tpot_ms_p95']:.0f}", f"{found['latency_s']:.2f}"
            rows.append((f"{race.case['rate']:g}", policy, found["requests"], *served, *times))
    head = ("requests/s", "policy", "requests", "goodput", f"{WATCHING} / this", "in time", "by kind")
    errors = [point.more["step_time_error"] for point in points if "step_time_error" in point.more]
    told = (
        f"Every request is promised {points[0].more['slo_ms']:.1f} ms per token behind the first; goodput is those that"
        f" were served in that time, per second, while requests came, without the first {WARM:.0%} of it."
        f" Steps were predicted to {errors[-1]:.1%} on the average."
    )
    cells = table((*head, "ms/token: median, 95 %", "mean latency, s"), rows)
    return f"## Goodput by policy of admission\n\n{told}\n\n{cells}\n\n![Goodput and attainment]({PLOT})"


def gain(race: Race, policy: str) -> float:
    """The goodput of `WATCHING` over that of another policy."""
    mine, other = (race.ways[name].more["kinds"][ALL]["goodput"] for name in (WATCHING, policy))
    return float(mine / other) if other else float("inf")


def write(points: Sequence[Point], output: Path) -> None:
    """Write CSV, one row for each rate, policy and kind of request; and draw."""
    text = io.StringIO()
    rows = [
        {"rate": point.case["rate"], "policy": point.way, "slo_ms": point.more["slo_ms"], "kind": kind, **found}
        for point in points
        for kind, found in point.more["kinds"].items()
    ]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace(output / CSV, text.getvalue())
    drawn, panels = figure(2)
    for axes, what in zip(panels, ("goodput", "attainment"), strict=True):
        for policy in POLICIES:
            mine = sorted((p.case["rate"], p.more["kinds"][ALL][what]) for p in points if p.way == policy)
            axes.plot([rate for rate, _ in mine], [value for _, value in mine], ".-", label=policy)
        axes.set(xlabel="requests per second", ylabel=f"{what}", ylim=(0, None))
    panels[0].set(ylabel="requests in time per second")
    panels[1].axhline(0.95, color="0.8", linewidth=1, zorder=0)
    panels[0].legend(frameon=False, fontsize=8)
    save(drawn, output / PLOT)
