"""From points to tables and a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from multiverse.evaluation.bench import drafts, drafts_report, goodput, goodput_report
from multiverse.evaluation.bench.points import Point, Race, ahead_from, races, ratio, spread
from multiverse.evaluation.bench.prefix import NAME
from multiverse.evaluation.plots import figure, save
from multiverse.evaluation.results import replace, table
from multiverse.serving.sharing import ALWAYS, GAIN, NEVER

REPORT, PLOT = "bench.md", "bench.png"


def write_report(output: Path, about: dict[str, Any], points: Sequence[Point], left_out: dict[str, str]) -> None:
    """Write tables and plots of what is there."""
    machine, model = about["machine"], about["model"]
    parts = [
        f"# {model['name']}, {' '.join(about['server'].get('arguments', [])[:2]) or about['server'].get('url')}",
        f"`{about['command']}` on {machine['cores']} cores of {machine['processor']}, load {machine['load'][0]} before."
        f" Every value is the median of {about['sizes']['repeats']} repeats (least to most) of"
        f" {about['clock']}. The bound of a speed-up is tokens / steps of the critical path; the goals of blocks are"
        " prefilled in every way, so they count in neither.",
    ]
    for name, section in SECTIONS.items():
        if found := [point for point in points if point.experiment == name]:
            parts.append(section(found))
        elif name in left_out:
            parts.append(f"{name}: left out. {left_out[name]}")
    if any(point.experiment == "plain" for point in points):
        parts.append(f"Measured with {about['plain']}.")
    _plot(points, output / PLOT)
    if found := [point for point in points if point.experiment == goodput.NAME]:
        goodput_report.write(found, output)
    if found := [point for point in points if point.experiment == drafts.NAME]:
        drafts_report.write(found, output)
    parts.append(f"![Latency, speed-up and the three ways]({PLOT})")
    replace(output / REPORT, "\n\n".join(parts) + "\n")


def _degree(points: Sequence[Point]) -> str:
    rows = []
    for tokens in dict.fromkeys(point.case["tokens"] for point in points):
        alone, *wide = [point for point in points if point.case["tokens"] == tokens]
        rows.append((tokens, 1, "1.00", alone.per_token.text(), "", ""))
        for point in wide:
            gain = ratio(alone, point).median * point.tokens / alone.tokens
            cells = f"{point.bound:.2f}", point.per_token.text(), f"{gain:.2f}", f"{gain / point.bound:.0%}"
            rows.append((tokens, point.case["width"], *cells))
    head = ("tokens", "branches", "bound", "ms/token", "speed-up", "share of bound")
    return "## Latency per token against parallel degree, batch 1\n\n" + table(head, rows)


def _batch(points: Sequence[Point]) -> str:
    rows = []
    for race in races(points, "batch"):
        splice, gain = race.ways["splice"], race.ratio("sequential", "splice")
        ways = [race.ways[way] for way in ("splice", "sequential")]
        rates = (splice.batch * splice.tokens / spread(way.seconds).median for way in ways)
        shares = gain.text(), f"{gain.median / splice.bound:.0%}"
        rows.append((splice.batch, *(f"{rate:,.0f}" for rate in rates), *shares))
    first = points[0]
    head = ("batch", "tokens/s, forked", "tokens/s, sequential", "speed-up", "share of bound")
    about = f"## Speed-up against batch size, {first.tokens} tokens, bound {first.bound:.2f}"
    return f"{about}\n\n{table(head, rows)}"


def _ways(points: Sequence[Point]) -> str:
    rows, known = [], races(points, "ways")
    for race in known:
        splice, gain = race.ways["splice"], race.ratio("sequential", "splice")
        share = f"{gain.median / splice.bound:.0%}"
        shape = f"{race.case['width']} x {race.case['length']}", f"{splice.bound:.2f}"
        seconds = (spread(race.ways[way].seconds).text() for way in ("sequential", "client", "splice"))
        rows.append((*shape, *seconds, gain.text(), share, race.ratio("client", "splice").text()))
    head = ("branches x tokens", "bound", "s, sequential", "s, client forks", "s, spliced")
    text = table((*head, "speed-up", "share of bound", "client / spliced"), rows)
    return "\n\n".join(("## Three ways to the same tokens, batch 1", text, *_ahead(known)))


def _ahead(known: Sequence[Race]) -> list[str]:
    told = []
    for width in dict.fromkeys(race.case["width"] for race in known):
        mine = [race for race in known if race.case["width"] == width]
        gains = [race.ratio("client", "splice").median for race in mine]
        length = ahead_from([race.case["length"] for race in mine], gains)
        where = "is not ahead at the greatest length" if length is None else f"is ahead from {length} tokens on"
        told.append(f"With {width} branches the splice {where} (by the median).")
    return told


def _turns(points: Sequence[Point]) -> str:
    rows = []
    for point in points:
        step = spread(point.seconds).median / point.critical_path
        cells = (f"{1000 * point.more[n]:.1f} ({point.more[n] / step:.2f})" for n in ("fork_seconds", "join_seconds"))
        rows.append((point.case["width"], f"{1000 * step:.1f}", *cells))
    head = ("branches", "ms per step", "fork, ms (in steps)", "join, ms (in steps)")
    about = (
        "From the end of a goal to the start of its branches, and from the end of the last branch to the start of the"
        " conclusion; computing the last tags is in it, and in the forced shape of a benchmark also the whole goal."
    )
    return f"## Forks and joins\n\n{about}\n\n{table(head, rows)}"


def _plain(points: Sequence[Point]) -> str:
    rows = []
    for race in races(points, "plain"):
        with_, without = race.ways["with"], race.ways["without"]
        cells = with_.per_token.text(), without.per_token.text(), race.ratio("without", "with").text(3)
        rows.append((with_.batch, len(with_.seconds), *cells))
    head = ("batch", "rounds", "ms/token with", "ms/token without", "throughput with / without")
    return "## Plain traffic with and without the plugin\n\n" + table(head, rows)


def _mixed(points: Sequence[Point]) -> str:
    (race,) = races(points, "mixed")
    rows = []
    for way, point in race.ways.items():
        rates = spread(point.more["others_tokens_per_second"])
        slower = race.ratio(way, "alone").text()
        rows.append((way, point.per_token.text(), slower, f"{rates.median:,.0f}" if rates.median else ""))
    head = ("plain requests", "ms/token", "of alone", "tokens/s of the others")
    first = points[0]
    about = f"## Mixed traffic\n\n{first.batch} plain requests of {first.tokens} tokens beside two others.\n\n"
    return about + table(head, rows)


def _independent(points: Sequence[Point]) -> str:
    rows = []
    for race in races(points, "independent"):
        width, block = race.case["width"], race.ways["splice"]
        kept = race.ratio("sequential", "splice").median / block.bound
        beside = race.ratio("one", "independent").median
        rows.append((width, f"{block.bound:.2f}", f"{kept:.0%}", f"{beside:.0%}", f"{kept / beside:.2f}"))
    head = ("branches", "bound", "share of bound", "share of as many requests", "block / requests")
    about = (
        "What a step costs when it is wider, block or not: plain requests, each of as many tokens as the block has"
        " steps, would at best take as long together as one of them."
    )
    return f"## Branches beside independent requests\n\n{about}\n\n{table(head, rows)}"


def _replay(points: Sequence[Point]) -> str:
    rows = []
    for race in races(points, "replay"):
        splice, gain = race.ways["splice"], race.ratio("sequential", "splice")
        shares = f"{splice.bound:.2f}", gain.text(), f"{gain.median / splice.bound:.0%}"
        rows.append((race.case["answer"], splice.tokens, *shares))
    head = ("answer", "tokens", "bound", "speed-up", "share of bound")
    return "## Shapes of recorded answers, batch 1\n\n" + table(head, rows)


def _prefix(points: Sequence[Point]) -> str:
    rows = []
    for race in races(points, NAME):
        steps = (
            spread(1000 * s / race.ways[way].critical_path for s in race.ways[way].seconds) for way in (NEVER, ALWAYS)
        )
        ratio = race.ratio(ALWAYS, NEVER)
        pays = "yes" if ratio.median <= GAIN else "no"
        rows.append((race.case["shared"], race.case["width"], *(step.text(1) for step in steps), ratio.text(), pays))
    head = ("shared tokens", "branches", "ms/step, read by each", "ms/step, read once", "once / each", "pays")
    return "## Decode steps behind a prefix that branches share\n\n" + table(head, rows)


SECTIONS: dict[str, Callable[[Sequence[Point]], str]] = {
    "degree": _degree,
    "batch": _batch,
    "ways": _ways,
    "independent": _independent,
    "turns": _turns,
    "mixed": _mixed,
    "replay": _replay,
    "plain": _plain,
    NAME: _prefix,
    goodput.NAME: goodput_report.section,
    drafts.NAME: drafts_report.section,
}


def _plot(points: Sequence[Point], path: Path) -> None:
    """Latency against degree, speed-up against batch size, the client against the splice."""
    drawn, (degree, batch, ways) = figure(3)
    known = [point for point in points if point.experiment == "degree"]
    for tokens in dict.fromkeys(point.case["tokens"] for point in known):
        line = [(point.bound, point.per_token) for point in known if point.case["tokens"] == tokens]
        _errors(degree, [x for x, _ in line], [y for _, y in line], f"{tokens} tokens")
    degree.set(xlabel="tokens / critical path", ylabel="ms per token")
    found = races(points, "batch")
    _errors(batch, [race.case["batch"] for race in found], [r.ratio("sequential", "splice") for r in found], "forked")
    batch.set(xlabel="requests at once", ylabel="speed-up", xscale="log")
    found = races(points, "ways")
    for width in dict.fromkeys(race.case["width"] for race in found):
        mine = [race for race in found if race.case["width"] == width]
        gains = [race.ratio("client", "splice") for race in mine]
        _errors(ways, [race.case["length"] for race in mine], gains, f"{width} branches")
    ways.axhline(1, color="0.8", linewidth=1, zorder=0)
    ways.set(xlabel="tokens per branch", ylabel="client / spliced, seconds", xscale="log")
    for one in (degree, ways):
        if one.get_legend_handles_labels()[1]:
            one.legend(frameon=False, fontsize=8)
    save(drawn, path)


def _errors(axes: Any, x: Sequence[float], spreads: Sequence[Any], label: str) -> None:
    if x:
        errors = [[s.median - s.least for s in spreads], [s.most - s.median for s in spreads]]
        axes.errorbar(x, [s.median for s in spreads], errors, fmt=".-", capsize=3, label=label)
