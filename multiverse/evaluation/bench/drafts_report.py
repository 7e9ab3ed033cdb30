"""Draft lengths as a table, as CSV and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from multiverse.evaluation.bench.drafts import NAME, measured
from multiverse.evaluation.bench.points import Point, races, spread
from multiverse.evaluation.plots import figure, save
from multiverse.evaluation.results import replace, table
from multiverse.serving.drafts import NEARLY

CSV, PLOT = "drafts.csv", "drafts.png"


def section(points: Sequence[Point]) -> str:
    """For the report: what each draft length gives at each number of rows, and the table that follows."""
    rows = []
    for race in races(points, NAME):
        for way, point in race.ways.items():
            rate = spread(point.batch / seconds for seconds in point.seconds)
            steps, tokens = (spread(point.more[name]) for name in ("step_ms", "tokens_per_step"))
            gain = race.ratio("0", way).text()
            accepted = " ".join(f"{share:.0%}" for share in point.more["accepted"])
            rows.append((point.batch, way, rate.text(0), gain, steps.text(1), f"{tokens.median:.2f}", accepted))
    head = ("rows", "drafted", "tokens/s", "of none drafted", "ms/step", "tokens per row and step")
    told = (
        f"The most tokens per second, or {NEARLY:.0%} of them with fewer drafts: `--multiverse-drafts"
        f" {measured(points)}`\n\nAnswers are the model's own, to other questions each time, and prompts are computed"
        " meanwhile. What is accepted depends on what is said: measure with questions of yours. With none drafted, the"
        " drafter is still at work. The last column is the share of drafts whose first token was accepted, whose second"
        " was, too, and so on."
    )
    return f"## Draft lengths by rows in a step\n\n{told}\n\n{table((*head, 'accepted'), rows)}\n\n![Drafts]({PLOT})"


def write(points: Sequence[Point], output: Path) -> None:
    """Write CSV, one row for each number of rows, draft length and repeat; and draw."""
    text = io.StringIO()
    head = ("rows", "drafted", "repeat", "tokens_per_second", "step_ms", "tokens_per_row_and_step")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for point in points:
        values = zip(point.seconds, point.more["step_ms"], point.more["tokens_per_step"], strict=True)
        for repeat, (seconds, step, tokens) in enumerate(values):
            writer.writerow((point.batch, point.way, repeat, point.batch / seconds, step, tokens))
    replace(output / CSV, text.getvalue())
    drawn, (gains, steps) = figure(2)
    found = races(points, NAME)
    at = [race.case["rows"] for race in found]
    for way in found[0].ways:
        gains.plot(at, [race.ratio("0", way).median for race in found], ".-", label=f"{way} drafted")
        steps.plot(at, [spread(race.ways[way].more["step_ms"]).median for race in found], ".-")
    gains.axhline(1, color="0.8", linewidth=1, zorder=0)
    gains.set(xlabel="rows in a step", ylabel="tokens per second, of none drafted", xscale="log")
    steps.set(xlabel="rows in a step", ylabel="ms per step", xscale="log", ylim=(0, None))
    gains.legend(frameon=False, fontsize=8)
    save(drawn, output / PLOT)
