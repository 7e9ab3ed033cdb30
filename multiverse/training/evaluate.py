"""Measure a fine-tuned model on held-out examples: ``python -m multiverse.training.evaluate MODEL DATA.jsonl``.

Greedy, float32, by the reference decoder. Of each answer: is it well formed, does it fork where the example does, is
what follows the last ``Answer:`` exactly the example's, how many tokens and positions it took. With ``--time``, some
are decoded one at a time, in parallel and sequentially, and timed. With ``--agree``, the log-probabilities that the
decoder reported are compared with those of a training forward over the same text, packed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from multiverse.decoding.budgets import Limits
from multiverse.errors import TrainingError
from multiverse.models.evaluate import Outcome, Score, score
from multiverse.oracle import Generation, generate, load
from multiverse.structure.binding import detect
from multiverse.training.agreement import disagreement
from multiverse.training.encode import render_prompt
from multiverse.training.schema import Example, Problem, read

MAX_TOKENS = 800


def load_examples(path: str, tokenizer: Any, limit: int | None) -> list[Example]:
    """The first `limit` examples of `path`.

    Raises:
        TrainingError: naming the first row that is not one.
    """
    examples: list[Example] = []
    for _, found in read(path, detect(tokenizer)):
        if isinstance(found, Problem):
            raise TrainingError(str(found))
        if len(examples) == limit:
            break
        examples.append(found)
    return examples


def decode(
    model: Any, tokenizer: Any, examples: Sequence[Example], *, parallel: bool = True, batch: int = 16
) -> list[Generation]:
    """Answer `examples`, `batch` at a time; without `parallel` nothing is forked."""
    limits = Limits(max_tokens=MAX_TOKENS, max_depth=4 if parallel else 0)
    results: list[Generation] = []
    for start in track(range(0, len(examples), batch), "decoding", console=Console(stderr=True)):
        prompts = [render_prompt(tokenizer, example.messages) for example in examples[start : start + batch]]
        results += generate(model, tokenizer, prompts, limits=limits)
    return results


def outcome(example: Example, result: Generation, tokenizer: Any) -> Outcome:
    """What came of one example; its group is its id up to the first dash."""
    text = result.text.removesuffix(tokenizer.eos_token)
    figures = result.statistics
    return Outcome(
        group=example.id.partition("-")[0],
        exact=result.finish_reason == "stop" and text.rpartition("Answer:")[2].strip() == example.answer,
        forks=figures.parallel_blocks > 0,
        should_fork=example.parallel is not None and example.parallel != example.sequential,
        well_formed=figures.well_formed and result.finish_reason == "stop",
        tokens=figures.tokens,
        critical_path=figures.critical_path,
    )


def scores(outcomes: Sequence[Outcome]) -> dict[str, Score]:
    """Scores of all, of those that should fork (``block``), and of every group."""
    groups = {"all": list(outcomes), "block": [o for o in outcomes if o.should_fork]}
    for group in sorted({o.group for o in outcomes}):
        groups[group] = [o for o in outcomes if o.group == group]
    return {group: score(members) for group, members in groups.items() if members}


def timings(model: Any, tokenizer: Any, examples: Sequence[Example]) -> dict[str, dict[str, float]]:
    """Decode one example at a time, in parallel and sequentially by turns; sums of seconds, tokens and positions."""
    sums = {name: dict.fromkeys(("seconds", "cpu_seconds", "tokens", "critical_path"), 0.0) for name in _WAYS}
    for example in track(examples, "timing", console=Console(stderr=True)):
        prompt = render_prompt(tokenizer, example.messages)
        for name, depth in _WAYS.items():
            wall, cpu = time.monotonic(), time.process_time()
            (result,) = generate(model, tokenizer, [prompt], limits=Limits(max_tokens=MAX_TOKENS, max_depth=depth))
            sums[name]["seconds"] += time.monotonic() - wall
            sums[name]["cpu_seconds"] += time.process_time() - cpu
            sums[name]["tokens"] += result.statistics.tokens
            sums[name]["critical_path"] += result.statistics.critical_path
    return sums


_WAYS = {"parallel": 4, "sequential": 0}


def compare(model: Any, tokenizer: Any, examples: Sequence[Example], results: Sequence[Generation]) -> float:
    """How far decoding and training are apart: see `disagreement`."""
    reported = [r.transcript.logprobs[-len(r.ids) :] if r.transcript.logprobs else [] for r in results]
    return disagreement(model, tokenizer, examples, [r.ids for r in results], reported)


def table(found: dict[str, Score]) -> Table:
    """A row per group."""
    columns = ("problems", "exact %", "fork right %", "well formed %", "tokens", "critical path", "parallel degree")
    shown = Table("group", *columns)
    for group, s in found.items():
        formed = "-" if s.well_formed is None else f"{100 * s.well_formed:.1f}"
        shares = (f"{100 * s.exact:.1f}", f"{100 * s.fork_right:.1f}", formed)
        shown.add_row(group, str(s.problems), *shares, f"{s.tokens:.1f}", f"{s.critical_path:.1f}", f"{s.bound:.2f}")
    return shown


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m multiverse.training.evaluate", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--n", type=int, help="examples (default: all)")
    parser.add_argument("--sequential", action="store_true", help="fork nothing: for a model trained without blocks")
    parser.add_argument("--time", type=int, default=0, metavar="N", help="time N examples that should fork, one by one")
    parser.add_argument("--agree", type=int, default=0, metavar="N", help="compare N answers with a training forward")
    parser.add_argument("--batch", type=int, default=16, help="examples decoded side by side (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer = load(options.model)
    examples = load_examples(options.data, tokenizer, options.n)
    results = decode(model, tokenizer, examples, parallel=not options.sequential, batch=options.batch)
    outcomes = [outcome(e, r, tokenizer) for e, r in zip(examples, results, strict=True)]
    figures: dict[str, Any] = {"scores": {group: asdict(s) for group, s in scores(outcomes).items()}}
    Console(width=140).print(table(scores(outcomes)))
    if options.agree:
        figures["disagreement"] = compare(model, tokenizer, examples[: options.agree], results[: options.agree])
        print(f"log-probabilities of decoding and of training differ by at most {figures['disagreement']:.1e} nats")
    if options.time:
        forking = [e for e, o in zip(examples, outcomes, strict=True) if o.should_fork][: options.time]
        figures["timings"] = timings(model, tokenizer, forking)
        print(json.dumps(figures["timings"], indent=1))
    if options.json:
        answers = [
            {"id": e.id, "text": r.text, **asdict(o)} for e, r, o in zip(examples, results, outcomes, strict=True)
        ]
        options.json.write_text(json.dumps(figures | {"answers": answers}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
