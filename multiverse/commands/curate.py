"""`multiverse curate`: from sequential reasoning to Multiverse training data, and `curate stats`: what came out."""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from multiverse.errors import TranscriptError

if TYPE_CHECKING:
    from multiverse.curator import Config

SAMPLES = 60


def add_parser(commands: Any) -> None:
    """Add the subcommand to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "curate",
        help="make Multiverse training data from reasoning chains",
        description="Restructures the chains named in CONFIG.yaml with a language model, checks the result and goes on"
        " where an earlier run was interrupted. `curate stats CONFIG.yaml` shows figures and writes a report.",
        epilog="docs/curating.md explains the configuration. Exit status 1: some chains are unfinished, run it again.",
    )
    parser.add_argument("what", nargs="?", choices=("run", "stats"), default="run", help="default: run")
    parser.add_argument("config", metavar="CONFIG.yaml")
    parser.add_argument("--dry-run", action="store_true", help="ask nothing, estimate requests, tokens and cost")
    parser.add_argument("--limit", type=int, metavar="N", help="take only the first N records of the input")
    parser.add_argument("--ray", metavar="ADDRESS", help="run as a Ray job: a cluster's address, or `local`")
    parser.add_argument(
        "--shards", type=int, default=16, metavar="N", help="tasks of the Ray job (default: %(default)s)"
    )
    parser.add_argument(
        "--html", metavar="FILE", help="where stats puts its report (default: report.html in the output)"
    )
    parser.add_argument("--samples", type=int, default=SAMPLES, help="chains in the report (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Exit status 0 if everything is done, 1 if chains are unfinished."""
    for name in ("limit", "shards", "samples"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise TranscriptError(f"--{name} must be at least 1, is {value}")
    try:
        from multiverse.curator import load_config
    except ImportError as error:
        raise TranscriptError(
            f"curate needs more packages ({error.name}): pip install multiverse-engine[curate]"
        ) from error
    config = load_config(options.config)
    if options.what == "stats":
        return _stats(config, options)
    return _estimate(config, options) if options.dry_run else _curate(config, options)


def _curate(config: Config, options: argparse.Namespace) -> int:
    from multiverse.commands.progress import progress_bar
    from multiverse.curator import curate, curate_on_ray
    from multiverse.curator.tables import statistics_tables

    console = Console(stderr=True)
    if options.ray:
        address = None if options.ray == "local" else options.ray
        done = curate_on_ray(config, options.shards, address, options.limit)
    else:
        with progress_bar(console, "curating", options.limit) as progress:
            done = curate(config, options.limit, progress)
    if options.json:
        print(json.dumps(done.statistics.to_dict(), indent=1))
    else:
        console.print(statistics_tables(done.statistics, config.prices))
        console.print(f"results: {config.output}", highlight=False)
    if done.summary.unfinished:
        console.print(f"{done.summary.unfinished} chains are unfinished: the endpoint gave no answer. Run it again.")
    return 1 if done.summary.unfinished else 0


def _stats(config: Config, options: argparse.Namespace) -> int:
    from multiverse.curator.html import write_report
    from multiverse.curator.results import write_results
    from multiverse.curator.tables import statistics_tables

    statistics = write_results(config.output)
    target = Path(options.html) if options.html else config.output / "report.html"
    samples = write_report(config.output, target, statistics, config.prices, options.samples)
    if options.json:
        print(json.dumps(statistics.to_dict(), indent=1))
    else:
        console = Console()
        console.print(statistics_tables(statistics, config.prices))
        console.print(f"{samples} samples: {target}", highlight=False)
    return 0


def _estimate(config: Config, options: argparse.Namespace) -> int:
    from multiverse.curator import read_chains
    from multiverse.curator.estimate import estimate
    from multiverse.curator.tables import estimate_table

    rows, chains = estimate(config, islice(read_chains(config.input), options.limit))
    if options.json:
        print(json.dumps([vars(row) for row in rows], indent=1))
    else:
        Console().print(estimate_table(rows, chains))
    return 0
