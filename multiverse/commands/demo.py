"""`multiverse demo`: the embedded model answers a few questions, and one sees its branches grow side by side."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from multiverse.commands.branch_view import BranchView
from multiverse.commands.demo_hosts import Asked, Run, open_host
from multiverse.harness.server import HOSTS, installed
from multiverse.models import TINY
from multiverse.models.task import Kind, generate
from multiverse.wire.events import Branch

QUESTIONS: tuple[tuple[Kind, int | None], ...] = (("flat", 3), ("nested", 2), ("flat", 6), ("single", None))
"""Family and width of the questions that are asked; the last one is not worth a block."""


def add_parser(commands: Any) -> None:
    """Add the subcommand to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="watch the embedded model think in parallel",
        description="Serves the embedded model with vLLM or SGLang on this machine, asks it a few questions over "
        "HTTP and shows the branches as they grow; then the same sequentially. Draws the answer with most branches as "
        "a page. Nothing is downloaded.",
    )
    parser.add_argument(
        "--host", choices=(*HOSTS, "oracle"), help="default: the one that is installed here, else oracle"
    )
    parser.add_argument("--url", help="ask this running server instead of starting one, e.g. http://localhost:8000")
    parser.add_argument("--model", default=str(TINY), help="another model with block tags (default: the embedded one)")
    parser.add_argument("--question", action="append", help="ask this instead, as often as you like")
    parser.add_argument("--seed", type=int, default=7, help="draws other questions (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=900, help="default: %(default)s")
    parser.add_argument("-o", "--output", default="demo.html", help="the page (default: %(default)s)")
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Question:
    """A question, and its answer if it is known."""

    text: str
    answer: str | None


def run(options: argparse.Namespace) -> int:
    """Ask, show, and compare with sequential decoding of the same model."""
    console = Console()
    host = options.host or next(filter(installed, HOSTS), "oracle")
    if host == "oracle" and not (options.host or options.url):
        console.print(
            "Neither vLLM nor SGLang is installed in this environment: the reference decoder answers instead. "
            "`make demo` sets a host up and serves the model with it."
        )
    with open_host(host, options, console) as asked:
        rows = [_compare(console, asked, question) for question in _questions(options)]
    console.print("\n", _summary(rows))
    _draw(console, [parallel for _, parallel in rows], Path(options.output))
    return 0


def _questions(options: argparse.Namespace) -> list[Question]:
    if options.question:
        return [Question(text, None) for text in options.question]
    rng = Random(options.seed)
    problems = [generate(rng, kind, width, held_out=True) for kind, width in QUESTIONS]
    return [Question(problem.prompt, problem.answer) for problem in problems]


def _compare(console: Console, asked: Asked, question: Question) -> tuple[Question, Run]:
    """Answer a question twice, the first time for all to see, and say in one line what came of it."""
    console.print()
    console.rule("[bold]question")
    console.print(Text(question.text, style="bold"))
    view, last = BranchView(), Branch((), "")

    def show(root: Branch) -> None:
        nonlocal last
        last = root

    def draw() -> RenderableType:
        return view.render(last, console.width)

    with Live(get_renderable=draw, console=console, refresh_per_second=12) if console.is_terminal else nullcontext():
        parallel = asked.ask(question.text, True, show)
    if not console.is_terminal:
        console.print(draw())
    with console.status("the same again, without branches"):
        sequential = asked.ask(question.text, False)
    console.print(_verdict(question.answer, parallel, sequential))
    return question, parallel


def _verdict(expected: str | None, parallel: Run, sequential: Run) -> str:
    """One line of at most 80 columns: right, parallel degree, times faster."""
    known = "" if expected is None else "[green]right[/], " if parallel.answer == expected else "[red]wrong[/], "
    degree = f"{parallel.tokens / max(1, parallel.steps):.2f} ({parallel.tokens} tokens, {parallel.steps} steps)"
    same = (sequential.answer, sequential.tokens) == (parallel.answer, parallel.tokens)
    differs = "" if same else f"\n[dim]  without branches: {sequential.answer}, {sequential.tokens} tokens[/]"
    return f"→ {known}parallel degree {degree}, {sequential.seconds / parallel.seconds:.2f} times as fast{differs}"


def _summary(rows: list[tuple[Question, Run]]) -> RenderableType:
    known = [parallel.answer == question.answer for question, parallel in rows if question.answer is not None]
    verdict = f"{sum(known)} of {len(known)} answers are right. " if known else ""
    return Text(
        f"{verdict}Steps are what latency is made of, tokens are what is said; the parallel degree is how many "
        "tokens there are to a step.",
        "dim",
    )


def _draw(console: Console, runs: list[Run], output: Path) -> None:
    """Write the page of the answer with most branches."""
    pictures = [run.picture for run in runs if run.picture is not None]
    if pictures:
        widest = max(pictures, key=lambda picture: len(picture.lanes))
        widest.write(output)
        console.print(f"{len(widest.lanes) - 1} branches are drawn in {output.resolve().as_uri()}", soft_wrap=True)
