"""`multiverse stress`: does a running server hold under mixed, interrupted and malformed traffic?"""

from __future__ import annotations

import argparse
import asyncio
from itertools import islice
from pathlib import Path
from typing import Any

from multiverse.errors import RunError
from multiverse.harness.questions import read_questions
from multiverse.models.task import stream as problems
from multiverse.structure.dialects import registry

SHOWN = 20
"""Problems that are printed; all are counted."""


def add_parser(commands: Any) -> None:
    """Add the subcommand to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "stress",
        help="try whether a running server holds",
        description="Rounds of structured and plain requests, wide and deep blocks, aborts, disconnects and malformed "
        "fields against a server with the plugin that nobody else uses meanwhile. Answers that are not disturbed have "
        "to be those that the quiet server gives, and nothing may be left behind. Exits with 1 if it did not hold.",
    )
    parser.add_argument(
        "url", metavar="URL", help="e.g. http://localhost:8000; with SGLang, --enable-metrics is needed"
    )
    parser.add_argument("--rounds", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--requests", type=int, default=60, help="of a round (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, default=16, help="requests at once (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=400, help="of an answer (default: %(default)s)")
    parser.add_argument("--questions", metavar="FILE", help="one per line (default: some for the embedded model)")
    parser.add_argument("--dialect", default="multiverse", help="the model's: name or TOML file (default: %(default)s)")
    parser.add_argument("--patience", type=float, default=120, help="seconds for an answer, and to come to rest")
    parser.add_argument(
        "--may-differ", type=float, default=0.0, metavar="SHARE",
        help="of undisturbed answers, where arithmetic depends on the batch, as with bfloat16 on a GPU (default: 0)",
    )  # fmt: skip
    parser.add_argument("--max-growth", type=float, default=512, metavar="MIB", help="of memory (default: %(default)s)")
    parser.add_argument(
        "--mixed", type=float, default=0.5, metavar="SHARE",
        help="of requests that mix all documented fields, wrong values among them (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--operate", action="store_true",
        help="also pause, reset and load the same weights again meanwhile; vLLM needs VLLM_SERVER_DEV_MODE=1",
    )  # fmt: skip
    parser.add_argument(
        "--promises", action="store_true",
        help="requests also name an `slo`, as servers under --multiverse-admission slack take",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="draws other traffic (default: %(default)s)")
    parser.add_argument("-o", "--output", default="stress.csv", help="a line per round (default: %(default)s)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Stress the server; exit status 0 if it held."""
    try:
        from multiverse.stress.report import Settings
        from multiverse.stress.run import stress
    except ImportError as error:
        raise RunError(
            "stress needs openai, aiohttp and prometheus-client: pip install multiverse-engine[stress]"
        ) from error
    settings = Settings(
        url=options.url.rstrip("/"),
        dialect=registry.get(options.dialect),
        questions=_questions(options.questions),
        **{name: getattr(options, name) for name in (*_NUMBERS, "mixed", "operate", "promises", "seed")},
    )
    report = asyncio.run(stress(settings, _tell, _tell_progress))
    report.write(Path(options.output))
    for problem in report.problems[:SHOWN]:
        print(f"  {problem}")
    results = sum(len(each.results) for each in report.rounds)
    print(f"{results} requests in {len(report.rounds)} rounds, written to {options.output}")
    print(f"verdict: {'failed, ' + str(len(report.problems)) + ' problems' if report.problems else 'held'}")
    return 1 if report.problems else 0


_NUMBERS = ("rounds", "requests", "concurrency", "max_tokens", "patience", "may_differ", "max_growth")


def _questions(file: str | None) -> list[str]:
    return [problem.prompt for problem in islice(problems(1), 12)] if file is None else read_questions(file)


def _tell_progress(answered: int, asked: int) -> None:
    print(f"  {answered} of {asked} requests are answered", flush=True)


def _tell(round_: Any) -> None:
    counts = ", ".join(f"{number} {outcome}" for outcome, number in sorted(round_.counts.items()))
    settled = "not at rest" if round_.settled is None else f"at rest after {round_.settled:.0f} s"
    print(
        f"round {round_.number}: {round_.seconds:.0f} s, {counts}; KV peak {round_.peak:.1%}, {settled}: {round_.rest}"
    )
