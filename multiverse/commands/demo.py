"""`multiverse demo`: the embedded model answers a few questions, and one sees its branches grow side by side."""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from dataclasses import dataclass
from random import Random
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from multiverse.budgets import Limits
from multiverse.commands.strand_view import StrandView
from multiverse.document import statistics
from multiverse.errors import TranscriptError
from multiverse.models import TINY
from multiverse.models.task import Kind, generate

QUESTIONS: tuple[tuple[Kind, int | None], ...] = (("single", None), ("flat", 3), ("nested", 2), ("flat", 6))
"""Family and width of the questions that are asked."""


def add_parser(commands: Any) -> None:
    """Add the subcommand to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="watch the embedded model think in parallel",
        description="Decodes with the reference decoder on this machine's CPU; nothing is downloaded.",
    )
    parser.add_argument("--model", default=str(TINY), help="another model with block tags (default: the embedded one)")
    parser.add_argument("--question", action="append", help="ask this instead, as often as you like")
    parser.add_argument("--seed", type=int, default=7, help="draws other questions (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=900, help="default: %(default)s")
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class _Question:
    text: str
    answer: str | None


def run(options: argparse.Namespace) -> int:
    """Ask, show, and compare with sequential decoding of the same model."""
    console = Console()
    limits = Limits(max_tokens=options.max_tokens)
    try:
        import torch

        from multiverse.oracle import load
    except ImportError as error:
        raise TranscriptError("the demo needs torch and transformers: pip install multiverse-engine[oracle]") from error
    torch.set_num_threads(1)  # more only get into each other's way with a model this small
    console.print(f"Loading {options.model}")
    model, tokenizer = load(options.model)
    rows = [_ask(console, model, tokenizer, question, limits) for question in _questions(options)]
    console.print("\n", _summary(rows))
    return 0


def _questions(options: argparse.Namespace) -> list[_Question]:
    if options.question:
        return [_Question(text, None) for text in options.question]
    rng = Random(options.seed)
    problems = [generate(rng, kind, width, held_out=True) for kind, width in QUESTIONS]
    return [_Question(problem.prompt, problem.answer) for problem in problems]


@dataclass(frozen=True)
class _Run:
    """One decoding of one question. `steps` are forward passes of the model after the prompt."""

    answer: str
    tokens: int
    critical_path: int
    steps: int
    seconds: float


def _ask(
    console: Console, model: Any, tokenizer: Any, question: _Question, limits: Limits
) -> tuple[_Question, _Run, _Run]:
    console.print()
    console.rule("[bold]question")
    console.print(Text(question.text, style="bold"))
    parallel = _decode(console, model, tokenizer, question, limits)
    sequential = _decode(None, model, tokenizer, question, Limits(max_tokens=limits.max_tokens, max_depth=0))
    return question, parallel, sequential


def _decode(console: Console | None, model: Any, tokenizer: Any, question: _Question, limits: Limits) -> _Run:
    """Decode, and if there is a console show the branches while they grow."""
    from multiverse.binding import bind, detect
    from multiverse.oracle import Decoder

    turn = [{"role": "user", "content": question.text}]
    prompt = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    binding = bind(detect(tokenizer), tokenizer)
    decoder = Decoder(model, binding)
    request = decoder.add(tokenizer.encode(prompt, add_special_tokens=False), limits)
    view = StrandView(request.controller.root, tokenizer, binding.dialect)
    steps, start = 0, time.perf_counter()
    with Live(console=console, refresh_per_second=12) if console else nullcontext() as live:
        while decoder.busy:
            steps += bool(decoder.step())
            if live and console and console.is_terminal:
                live.update(view.render(console.width))
        if live and console:
            live.update(view.render(console.width))
    seconds = time.perf_counter() - start
    transcript, first = request.transcript(), len(request.controller.prompt.ids)
    figures = statistics(transcript, first)
    text = tokenizer.decode(transcript.ids[first:], skip_special_tokens=True)
    answer = text.rsplit("Answer:", 1)[1].strip() if "Answer:" in text else "none"
    return _Run(answer, figures.tokens, figures.critical_path, steps, seconds)


def _summary(rows: list[tuple[_Question, _Run, _Run]]) -> RenderableType:
    table = Table(title="the same model, decoded in parallel and sequentially", title_justify="left")
    table.add_column("expected", justify="right")
    for name in ("answer", "tokens", "critical path", "parallel degree", "steps", "seconds"):
        table.add_column(name, justify="right")
    for name in ("sequential answer", "steps", "seconds"):
        table.add_column(name, justify="right", style="dim")
    for question, parallel, sequential in rows:
        degree = parallel.tokens / max(1, parallel.critical_path)
        table.add_row(
            question.answer or "?",
            _marked(parallel.answer, question.answer),
            *map(str, (parallel.tokens, parallel.critical_path)),
            f"{degree:.2f}",
            str(parallel.steps),
            f"{parallel.seconds:.1f}",
            _marked(sequential.answer, question.answer),
            str(sequential.steps),
            f"{sequential.seconds:.1f}",
        )
    note = "A step is one forward pass of the model, over all branches at once: that is what latency is made of."
    return Group(table, Text(note, style="dim"))


def _marked(answer: str, expected: str | None) -> str:
    mark = "" if expected is None else " [green]right[/]" if answer == expected else " [red]wrong[/]"
    return answer + mark
