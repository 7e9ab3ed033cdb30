"""Evaluate the embedded model on held-out problems: ``python -m multiverse.models.evaluate``.

The same problems are decoded in several ways, all of them greedily and by the reference decoder:

- *parallel*: as the model asks for it;
- *sequential*: the same model, but nothing is forked, so it writes its branches one after the other;
- *blinded*: as parallel, but the branches are hidden from the conclusion and all that follows. If the answers were
  still right, the branches would be for show;
- *autoregressive* (with ``--sequential-model``): a model of the same size and budget trained on the same solutions
  written line by line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from multiverse.decoding.budgets import Limits
from multiverse.models import TINY
from multiverse.models.task import HELD_OUT_SEED, WIDTHS, Problem, stream
from multiverse.models.tokenizer import TURN_END, turn
from multiverse.oracle import generate, load

Decoding = Literal["parallel", "sequential", "blinded", "autoregressive"]
DECODINGS: tuple[Decoding, ...] = get_args(Decoding)
MAX_TOKENS = 1000
#: "block" is every problem that is worth one: flat of any width, and nested.
GROUPS: tuple[str, ...] = ("all", "block", "single", "chain", "small", *(f"flat {w}" for w in WIDTHS), "nested")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one problem.

    Attributes:
        group: the family, with its width if it is ``flat``.
        exact: whether the answer ends with exactly the right number.
        forks: whether a block was written.
        should_fork: whether one was worth it.
        well_formed: whether the text follows the grammar and ended by itself.
        tokens: generated tokens, those that the engine writes included.
        critical_path: positions from the first of them to the last.
    """

    group: str
    exact: bool
    forks: bool
    should_fork: bool
    well_formed: bool
    tokens: int
    critical_path: int


@dataclass(frozen=True, slots=True)
class Score:
    """Outcomes of a group, summed up. Shares are 0 to 1; `None` where there is nothing to take a share of.

    Attributes:
        exact: right answers.
        fork_right: right decisions for or against a block.
        well_formed: well-formed texts among those with a block.
        tokens, critical_path: means.
        bound: sum of tokens / sum of critical paths: the speed-up if width cost nothing.
    """

    problems: int
    exact: float
    fork_right: float
    well_formed: float | None
    tokens: float
    critical_path: float
    bound: float


def decode(
    model: Any, tokenizer: Any, problems: Sequence[Problem], decoding: Decoding = "parallel", batch: int = 48
) -> list[Outcome]:
    """Decode `problems` greedily, `batch` at a time, with a progress bar."""
    limits = Limits(max_tokens=MAX_TOKENS, max_depth=0 if decoding in ("sequential", "autoregressive") else 4)
    outcomes: list[Outcome] = []
    for start in track(range(0, len(problems), batch), decoding, console=Console(stderr=True)):
        chunk = problems[start : start + batch]
        results = generate(
            model,
            tokenizer,
            [turn(problem) for problem in chunk],
            dialect="multiverse",
            limits=limits,
            splice_branches=decoding != "blinded",
        )
        outcomes += [_outcome(problem, result) for problem, result in zip(chunk, results, strict=True)]
    return outcomes


def _outcome(problem: Problem, result: Any) -> Outcome:
    figures = result.statistics
    return Outcome(
        group=f"flat {problem.width}" if problem.kind == "flat" else problem.kind,
        exact=result.text.endswith(f"\nAnswer: {problem.answer}{TURN_END}"),
        forks=figures.blocks > 0,
        should_fork=problem.forks,
        well_formed=figures.well_formed and result.finish_reason == "stop",
        tokens=figures.tokens,
        critical_path=figures.critical_path,
    )


def score(outcomes: Sequence[Outcome]) -> Score:
    """Sum outcomes up.

    Raises:
        ZeroDivisionError: if there are none.
    """
    n = len(outcomes)
    blocks = [o.well_formed for o in outcomes if o.forks]
    tokens, critical = sum(o.tokens for o in outcomes), sum(o.critical_path for o in outcomes)
    return Score(
        problems=n,
        exact=sum(o.exact for o in outcomes) / n,
        fork_right=sum(o.forks == o.should_fork for o in outcomes) / n,
        well_formed=sum(blocks) / len(blocks) if blocks else None,
        tokens=tokens / n,
        critical_path=critical / n,
        bound=tokens / critical,
    )


def scores(outcomes: Sequence[Outcome]) -> dict[str, Score]:
    """Scores of every group that occurs, `all` first."""
    members = {g: [o for o in outcomes if g in ("all", o.group) or (g == "block" and o.should_fork)] for g in GROUPS}
    return {group: score(found) for group, found in members.items() if found}


def exact_table(results: dict[Decoding, dict[str, Score]]) -> Table:
    """Exact answers in per cent: a row per decoding, a column per group."""
    first = next(iter(results.values()))
    table = Table("decoding", *first, title="Exact answers (%)")
    table.add_row("problems", *(str(s.problems) for s in first.values()), end_section=True)
    for decoding, by_group in results.items():
        table.add_row(decoding, *(f"{100 * s.exact:.1f}" for s in by_group.values()))
    return table


def structure_table(by_group: dict[str, Score]) -> Table:
    """Structure and length of what was decoded: a row per group."""
    columns = ("fork right %", "well formed %", "tokens", "critical path", "bound")
    table = Table("parallel decoding", *columns, title="Structure")
    for group, s in by_group.items():
        formed = "-" if s.well_formed is None else f"{100 * s.well_formed:.1f}"
        figures = (f"{100 * s.fork_right:.1f}", formed, f"{s.tokens:.1f}", f"{s.critical_path:.1f}", f"{s.bound:.2f}")
        table.add_row(group, *figures)
    return table


def evaluate(options: argparse.Namespace) -> dict[Decoding, dict[str, Score]]:
    """Run every decoding that was asked for."""
    problems = list(islice(stream(options.seed), options.n))
    results: dict[Decoding, dict[str, Score]] = {}
    for decoding in options.decodings:
        source = options.sequential_model if decoding == "autoregressive" else options.model
        if source is not None:
            results[decoding] = scores(decode(*load(str(source)), problems, decoding, options.batch))
    return results


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m multiverse.models.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=TINY, help="default: the embedded one")
    parser.add_argument(
        "--sequential-model", type=Path, help="a model trained on the plain forms alone (phases: [{parallel: 0}])"
    )
    parser.add_argument("--n", type=int, default=1000, help="problems (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED)
    parser.add_argument("--batch", type=int, default=48, help="problems decoded side by side")
    parser.add_argument("--decodings", nargs="+", choices=DECODINGS, default=DECODINGS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    started = time.monotonic()
    results = evaluate(options)
    console = Console(width=140)
    if results:
        console.print(exact_table(results))
    if "parallel" in results:
        console.print(structure_table(results["parallel"]))
    if options.json:
        figures = {d: {g: asdict(s) for g, s in groups.items()} for d, groups in results.items()}
        run = {"n": options.n, "seed": options.seed, "seconds": round(time.monotonic() - started)}
        options.json.write_text(json.dumps(run | {"results": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
