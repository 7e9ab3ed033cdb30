"""`multiverse plan`: what branching gains on a machine that is not here."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from multiverse.commands.plan_tables import drafts, policies, sharing
from multiverse.errors import RunError


def add_parser(commands: Any) -> None:
    """Add the subcommand to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "plan",
        help="predict latency, throughput and speed-up on a machine you do not have",
        description="Simulates a server that decodes answers in branches, and one that decodes the same tokens one"
        " after the other, over batch sizes or arrival rates.",
        epilog="docs/benchmarks.md says what is in the simulation, what is not, and how far it was validated.",
    )
    parser.add_argument("--machine", default="h100", help="name or YAML file (default: %(default)s)")
    parser.add_argument("--model", default="qwen2.5-32b", help="name or YAML file (default: %(default)s)")
    parser.add_argument("--transcripts", nargs="+", metavar="FILE", help="take the shapes of these answers")
    parser.add_argument("--tokens", type=int, default=8192, help="of an answer, without --transcripts (default: 8192)")
    parser.add_argument("--degree", type=_floats, default=[1.2], help="#parallel of answers: 1.2,1.5,2 (default: 1.2)")
    parser.add_argument("--width", type=int, default=4, help="branches of a block (default: %(default)s)")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of a prompt (default: %(default)s)")
    parser.add_argument("--batch", type=_floats, default=[1, 2, 4, 8, 16, 32, 64, 128], help="default: 1 to 128")
    parser.add_argument("--rate", type=_floats, help="arrivals per second instead of batch sizes: 0.1,0.5,1")
    parser.add_argument(
        "--fit",
        metavar="BENCH.JSON",
        help="make a machine of what `multiverse bench` measured, and try it",
    )
    _add_tables(parser)
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.add_argument("-o", "--output", metavar="DIR", help="write JSON, Markdown and a plot")
    parser.set_defaults(run=run)


def _add_tables(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sharing",
        action="store_true",
        help="print instead what decode steps gain if a prefix that branches share is read once, by width and prefix",
    )
    parser.add_argument(
        "--policies",
        action="store_true",
        help="print instead how many requests policies of admission serve in time, at each --rate, of answers of about"
        " --tokens of which four of five have blocks",
    )
    parser.add_argument(
        "--slo", type=float, default=2.5, help="--policies: promised, in times per token of one alone (default: 2.5)"
    )
    parser.add_argument(
        "--drafts",
        type=_lengths,
        metavar="LENGTHS",
        help="print instead what drafts of these lengths gain (1,2,4,8), by rows in a step (--batch), each with its"
        " prompt and half of its --tokens; and the table for --multiverse-drafts",
    )
    parser.add_argument(
        "--acceptance",
        type=_floats,
        default=[0.5, 0.7, 0.9],
        help="--drafts: share of drafted tokens accepted, of those before which all were (default: 0.5,0.7,0.9)",
    )


def _floats(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _lengths(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def run(options: argparse.Namespace) -> int:
    """Exit status 0."""
    try:
        from multiverse.evaluation.plan.machine import Machine, Model, Roofline, load
        from multiverse.evaluation.plan.study import over_batch, over_rate
    except ImportError as error:
        raise RunError(f"plan needs more packages ({error.name}): pip install multiverse-engine[eval]") from error
    _check(options)
    if options.fit:
        return _fit(options)
    roofline = Roofline(load(Machine, "machines", options.machine), load(Model, "models", options.model))
    if tell := _table(options):
        return tell(roofline, options)
    batches = [int(batch) for batch in options.batch]
    found = {
        name: over_rate(shapes, roofline, options.rate, max(batches))
        if options.rate
        else over_batch(shapes, roofline, batches)
        for name, shapes in _workloads(options).items()
    }
    _report(found, options)
    return 0


def _table(options: argparse.Namespace) -> Callable[[Any, argparse.Namespace], int] | None:
    """What tells another table than the usual one, if that is asked for."""
    asked = {sharing: options.sharing, policies: options.policies, drafts: options.drafts}
    return next((tell for tell, wanted in asked.items() if wanted), None)


def _workloads(options: argparse.Namespace) -> dict[str, Any]:
    """Shapes of recorded answers, or made up ones for each degree."""
    from multiverse.evaluation.plan.shapes import shapes_in, synthetic

    if options.transcripts:
        return {"transcripts": shapes_in(options.transcripts, options.prompt)}
    made = ((degree, synthetic(options.tokens, degree, options.width, options.prompt)) for degree in options.degree)
    return {f"degree {degree:g}": [shape] for degree, shape in made}


def _check(options: argparse.Namespace) -> None:
    positive = {
        "--tokens": [options.tokens],
        "--width": [options.width],
        "--batch": options.batch,
        "--slo": [options.slo],
        "--drafts": options.drafts or [1],
    }
    if not all(0 <= share <= 1 for share in options.acceptance):
        raise RunError(f"--acceptance must be between 0 and 1, is {','.join(f'{x:g}' for x in options.acceptance)}")
    for name, values in (positive | {"--rate": options.rate or [1], "--prompt": [options.prompt + 1]}).items():
        if min(values) <= 0:
            raise RunError(f"{name} must be positive, is {min(values):g}")


def _fit(options: argparse.Namespace) -> int:
    """Fit to half of the points, predict the other half, and the other way round. Exit status 0."""
    try:
        from multiverse.evaluation.plan.fit import fit, read_bench
    except ImportError as error:
        raise RunError(f"plan --fit needs more packages ({error.name}): pip install multiverse-engine[eval]") from error
    from multiverse.evaluation.results import replace, table

    bench = read_bench(Path(options.fit))
    half, rest = bench.halves()
    found, swapped = fit(bench, half, rest), fit(bench, rest, half)
    rows = [
        (point.name, point.batch, f"{point.seconds:.3f}", f"{predicted:.3f}", f"{predicted / point.seconds - 1:+.1%}")
        for point, predicted in found.tried
    ]
    fitted = found.machine.model_dump(exclude={"memory_efficiency", "compute_efficiency", "memory", "name"})
    told = [
        table(("not fitted", "batch", "s, measured", "s, predicted", "error"), rows),
        f"Fitted to {len(half)} points: {', '.join(f'{name} {value:.4g}' for name, value in fitted.items())}",
        f"Median error over the other {len(rest)}: {found.median_error:.1%}, largest {max(found.errors):.1%}"
        f" (halves swapped: {swapped.median_error:.1%}, {max(swapped.errors):.1%})",
    ]
    print("\n\n".join(told))
    if options.output:
        target = Path(options.output)
        target.mkdir(parents=True, exist_ok=True)
        replace(target / "fit.md", "\n\n".join(told) + "\n")
        for name, made in (("machine.yaml", found.machine), ("model.yaml", bench.model)):
            replace(target / name, "".join(f"{key}: {value}\n" for key, value in made.model_dump().items()))
    return 0


def _report(found: dict[str, Any], options: argparse.Namespace) -> None:
    from multiverse.evaluation.plots import plot_curves
    from multiverse.evaluation.results import replace

    data = json.dumps({name: [row.to_dict() for row in rows] for name, rows in found.items()}, indent=1)
    text = _text(found, "arrivals/s" if options.rate else "batch")
    print(data if options.json else text)
    if options.output:
        target = Path(options.output)
        target.mkdir(parents=True, exist_ok=True)
        replace(target / "plan.json", data + "\n")
        replace(target / "plan.md", text + "\n")
        gains = {name: [row.speedup for row in rows] for name, rows in found.items()}
        lines = {
            name: ([row.at for row in rows], gains[name], gains[name], gains[name]) for name, rows in found.items()
        }
        label = "arrivals per second" if options.rate else "requests under way"
        plot_curves({label: lines}, "speed-up per token", target / "plan.png")


def _text(found: dict[str, Any], at: str) -> str:
    from multiverse.evaluation.plan.study import PAYS, stops_paying
    from multiverse.evaluation.results import table

    head = ("answers", at, "#parallel", "ms/token", "ms/token sequential", "speed-up")
    rows = [
        (
            name,
            f"{row.at:g}",
            f"{row.degree:.2f}",
            f"{row.branching:.2f}",
            f"{row.sequential:.2f}",
            f"{row.speedup:.2f}",
            " / ".join(f"{seconds:.1f}" for seconds in row.p95),
            " / ".join(f"{rate:,.0f}" for rate in row.throughput),
        )
        for name, lines in found.items()
        for row in lines
    ]
    ends = {name: stops_paying(lines) for name, lines in found.items()}
    told = [
        f"{name}: branching gains {PAYS - 1:.0%} or more " + _until(end, lines[0].at, at)
        for (name, end), lines in zip(ends.items(), found.values(), strict=True)
    ]
    return table((*head, "p95 s, both", "tokens/s, both"), rows) + "\n\n" + "\n".join(told)


def _until(end: float | None, first: float, at: str) -> str:
    if end is None:
        return "throughout"
    return "nowhere" if end == first else f"below {at} {end:g} and less from there on"
