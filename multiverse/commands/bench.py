"""`multiverse bench`: how fast a server is, with branches and without."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from multiverse.errors import RunError
from multiverse.harness.server import HOSTS
from multiverse.models import TINY

EXPERIMENTS = ("degree", "batch", "ways", "independent", "turns", "mixed", "replay", "plain", "prefix", "goodput")
ALONE = "drafts"
"""An experiment that is measured by itself: vLLM forces no shapes on a server that drafts."""


def add_parser(commands: Any) -> None:
    """Add the subcommand to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="measure a server's speed with branches and without",
        description="Measures a server that runs (--url), or one that it starts with the plugin (--host). Answers"
        " have forced shapes, so any model will do whose tokenizer has the tags; its words don't matter. Options that"
        " this command does not know are handed to the host's server.",
        epilog="docs/benchmarks.md explains the experiments. A server that runs must have been started with"
        " --multiverse-shapes accept.",
    )
    parser.add_argument("--url", help="measure the server that runs there")
    parser.add_argument("--host", choices=HOSTS, default=HOSTS[0], help="else start this one (default: %(default)s)")
    parser.add_argument("--model", help="name or directory (default: the embedded one; with --url: what it says)")
    parser.add_argument("-o", "--output", default="bench", metavar="DIR", help="default: %(default)s")
    chosen = parser.add_argument_group("what is measured")
    chosen.add_argument(
        "--only", type=_names, default=None, metavar="NAMES", help=f"some of {','.join(EXPERIMENTS)}; or {ALONE}"
    )
    chosen.add_argument(
        "--cpu-time", action="store_true", help="measure the server's CPU time: others are at work here"
    )
    chosen.add_argument("--repeats", type=int, default=3, help="of everything (default: %(default)s)")
    chosen.add_argument("--prompt", type=int, default=64, help="tokens of a prompt (default: %(default)s)")
    about_tokens = "degree: of answers (%(default)s); drafts: at most, the first"
    chosen.add_argument("--tokens", type=_numbers, default="256,512,1024", help=about_tokens)
    chosen.add_argument("--widths", type=_numbers, default="2,4,8,16", help="of blocks (default: %(default)s)")
    chosen.add_argument("--batches", type=_numbers, default="1,2,4,8,16,32,64,128", help="default: %(default)s")
    chosen.add_argument("--lengths", type=_numbers, default="16,64,256", help="ways: of branches (%(default)s)")
    chosen.add_argument(
        "--prefixes", type=_numbers, default="512,2048,8192", help="prefix: shared tokens (%(default)s)"
    )
    chosen.add_argument("--transcripts", nargs="+", default=[], metavar="FILE", help="replay: recorded answers")
    chosen.add_argument("--answers", type=int, default=10, help="replay: how many of them (default: %(default)s)")
    chosen.add_argument("--scale", type=float, default=1.0, help="replay: multiply lengths (default: %(default)s)")
    _add_goodput(parser)
    speculation = parser.add_argument_group("drafts: how much to draft at how many rows (--batches)")
    speculation.add_argument("--questions", metavar="FILE", help="one a line (default: some for the embedded model)")
    parser.set_defaults(run=run, takes_more=True)


def _add_goodput(parser: argparse.ArgumentParser) -> None:
    chosen = parser.add_argument_group("goodput: policies that admit branches, on the same arrivals")
    chosen.add_argument("--rates", type=_rates, default=(), help="requests per second, a few around what it can do")
    chosen.add_argument("--span", type=float, default=60.0, help="for so many seconds at each (default: %(default)s)")
    chosen.add_argument("--arrivals", metavar="FILE", help="recorded times in seconds, one a line (default: at random)")
    chosen.add_argument("--share", type=float, default=0.8, help="of answers with blocks (default: %(default)s)")
    chosen.add_argument(
        "--slo", type=float, default=2.5, help="times an unloaded server's time per token (%(default)s)"
    )


def _rates(text: str) -> list[float]:
    found = [float(part) for part in text.split(",")]
    if min(found) <= 0:
        raise argparse.ArgumentTypeError(f"must be positive: {text}")
    return found


def _numbers(text: str) -> list[int]:
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"must be positive: {text}")
    return found


def _names(text: str) -> list[str]:
    if text == ALONE:
        return [ALONE]
    unknown = [name for name in text.split(",") if name not in EXPERIMENTS]
    if ALONE in unknown:
        raise argparse.ArgumentTypeError(f"{ALONE} can only be measured alone: vLLM forces no shapes beside drafts")
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no experiment {', '.join(unknown)}; there are {', '.join((*EXPERIMENTS, ALONE))}"
        )
    return text.split(",")


def run(options: argparse.Namespace) -> int:
    """Exit status 0 if everything was measured, 1 if something was left out."""
    try:
        from multiverse.evaluation.bench.race import Sizes
        from multiverse.evaluation.bench.report import REPORT
        from multiverse.evaluation.bench.run import Plan, bench
    except ImportError as error:
        raise RunError(f"bench needs more packages ({error.name}): pip install multiverse-engine[bench]") from error
    names = _chosen(options)
    sizes = Sizes(**{field.name: getattr(options, field.name) for field in fields(Sizes)})
    model = options.model or (None if options.url else str(TINY))
    command = " ".join(["multiverse", *sys.argv[1:]])
    output = Path(options.output)
    plan = Plan(output, command, options.url, options.host, model, options.more, names, sizes, options.cpu_time)
    results = bench(plan, lambda text: print(f"multiverse bench: {text}", file=sys.stderr, flush=True))
    print((output / REPORT).read_text())
    return 1 if results.left_out else 0


def _chosen(options: argparse.Namespace) -> list[str]:
    """The experiments that were asked for, or all that are possible.

    Raises:
        RunError: if an option is wrong, or lacks one that it needs.
    """
    if options.url and options.cpu_time:
        raise RunError("--cpu-time is that of a server that is started here, not of one that runs")
    if options.url and options.more:
        raise RunError(f"unknown arguments {' '.join(options.more)}: a server that runs can't be given any")
    for name in ("repeats", "prompt", "answers", "scale", "span", "share", "slo"):
        if getattr(options, name) <= 0:
            raise RunError(f"--{name} must be positive, is {getattr(options, name):g}")
    needed = {"replay": "transcripts", "goodput": "rates"}
    for name in options.only or ():
        if name in needed and not getattr(options, needed[name]):
            raise RunError(f"{name} needs --{needed[name]}")
    possible = {name: bool(getattr(options, needed[name])) for name in needed}
    possible["prefix"] = options.host == "sglang" and not options.url
    return options.only or [name for name in EXPERIMENTS if possible.get(name, True)]
