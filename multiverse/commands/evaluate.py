"""`multiverse eval`: run tasks against a server, grade recorded answers, compare runs, draw budget curves."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from multiverse.errors import RunError

_USES = ("compare", "budget", "recorded")


def add_parser(commands: Any) -> None:
    """Add the subcommand to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "eval",
        help="measure accuracy and parallelism of a model behind a server",
        usage="multiverse eval CONFIG.yaml\n       multiverse eval compare RUN RUN...\n"
        "       multiverse eval budget RUN...\n       multiverse eval recorded FILE...\n       multiverse eval harness",
        description="Runs the tasks of CONFIG.yaml, or goes on where an earlier run was interrupted. `compare` puts"
        " runs (output directories) side by side, `budget` draws accuracy against budgets, `recorded` grades answers"
        " in files, `harness` prints the directory of the tasks for lm-eval.",
        epilog="docs/evaluation.md explains the configuration. Exit status 1: something is missing, run it again.",
    )
    parser.add_argument("what", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", metavar="DIR", help="compare, budget, recorded: write JSON, Markdown, plots")
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument("--limit", type=int, metavar="N", help="run: only the first N problems of each task")
    recorded = parser.add_argument_group("recorded answers")
    recorded.add_argument("--answer-field", default="reference", help="key of the right answer (default: %(default)s)")
    recorded.add_argument("--task-field", default="benchmark", help="key of the task's name (default: %(default)s)")
    recorded.add_argument("--field", help="key of the model's answer (default: found out)")
    recorded.add_argument("--grader", choices=("math", "choice", "exact"), default="math", help="default: %(default)s")
    recorded.add_argument("--dialect", default="multiverse", help="default: %(default)s")
    recorded.add_argument("--tokenizer", metavar="MODEL", help="count its tokens instead of approximate ones")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Exit status 0 if everything is done, 1 if something is missing."""
    try:
        import multiverse.evaluation.run  # whether everything it needs is there
    except ImportError as error:
        raise RunError(f"eval needs more packages ({error.name}): pip install multiverse-engine[eval]") from error
    use, *names = options.what
    if options.what == ["harness"]:
        print(Path(multiverse.evaluation.__file__).parent / "harness")
        return 0
    if use not in _USES:
        if names:
            raise RunError(f"one CONFIG.yaml, or one of {', '.join(_USES)} and what it is about; got {options.what}")
        return _evaluate(use, options)
    if not names or (use == "compare" and len(names) < 2):
        raise RunError(f"eval {use} needs {'two runs or more' if use == 'compare' else 'at least one name'}")
    return {"compare": _compare, "budget": _budget, "recorded": _recorded}[use](names, options)


def _evaluate(config_file: str, options: argparse.Namespace) -> int:
    from rich.console import Console

    from multiverse.commands.progress import progress_bar
    from multiverse.evaluation.config import load_config
    from multiverse.evaluation.results import write_results
    from multiverse.evaluation.run import evaluate

    if options.limit is not None and options.limit < 1:
        raise RunError(f"--limit must be at least 1, is {options.limit}")
    config = load_config(config_file)
    config = config.model_copy(update={"limit": options.limit or config.limit})
    with progress_bar(Console(stderr=True), "evaluating", None) as progress:
        outcome = evaluate(config, Path(config_file).parent, progress)
    for line in (*outcome.warnings, *outcome.refused[:5]):
        print(f"multiverse eval: {line}", file=sys.stderr)
    missing = len(outcome.refused) + outcome.unfinished
    if missing:
        print(
            f"multiverse eval: {missing} samples are missing ({len(outcome.refused)} refused by the server,"
            f" {outcome.unfinished} without an answer); run it again to ask for them",
            file=sys.stderr,
        )
    if outcome.results.samples:
        write_results(config.output, outcome.results)
        _show(outcome.results, options)
        print(f"results: {config.output}", file=sys.stderr)
    return 1 if missing else 0


def _recorded(files: list[str], options: argparse.Namespace) -> int:
    from multiverse.evaluation.recorded import Columns, grade_recorded
    from multiverse.evaluation.results import write_results
    from multiverse.evaluation.samples import describer

    columns = Columns(options.answer_field, options.task_field, options.field)
    results, unread = grade_recorded(files, columns, options.grader, describer(options.dialect, options.tokenizer))
    if options.output:
        write_results(Path(options.output), results)
    _show(results, options)
    for message in unread:
        print(f"multiverse eval: {message}", file=sys.stderr)
    return 1 if unread else 0


def _show(results: Any, options: argparse.Namespace) -> None:
    from multiverse.evaluation.results import markdown

    rows = results.scores()
    print(json.dumps([row.to_dict() for row in rows], indent=1) if options.json else markdown(rows))


def _compare(names: list[str], options: argparse.Namespace) -> int:
    from multiverse.evaluation.compare import compare, comparison_table

    rows = compare(_read(names))
    data = json.dumps([row.to_dict() for row in rows], indent=1)
    _write(options.output, "comparison", data, comparison_table(rows))
    print(data if options.json else comparison_table(rows))
    return 0


def _budget(names: list[str], options: argparse.Namespace) -> int:
    from multiverse.evaluation.budget import budget_table, curves, plot_budgets

    points = curves(_read(names))
    data = json.dumps([vars(point) for point in points], indent=1)
    _write(options.output, "budget", data, budget_table(points))
    if options.output:
        plot_budgets(points, Path(options.output) / "budget.png")
    print(data if options.json else budget_table(points))
    return 0


def _read(names: list[str]) -> list[Any]:
    from dataclasses import replace

    from multiverse.evaluation.results import read_results

    runs = [read_results(Path(name)) for name in names]
    if len({run.name for run in runs}) < len(runs):  # the last part of the paths does not tell them apart
        runs = [replace(run, name=name) for run, name in zip(runs, names, strict=True)]
    return runs


def _write(output: str | None, name: str, data: str, text: str) -> None:
    from multiverse.evaluation.results import replace

    if output:
        Path(output).mkdir(parents=True, exist_ok=True)
        replace(Path(output) / f"{name}.json", data + "\n")
        replace(Path(output) / f"{name}.md", text + "\n")
