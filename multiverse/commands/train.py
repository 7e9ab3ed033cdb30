"""`multiverse train`: from a recipe and data to a model that decodes in parallel."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from multiverse.errors import TrainingError

SHOWN = 20
"""Problems of the data that are printed; all are written to a file."""


def add_parser(commands: Any) -> None:
    """Add the subcommand to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "train",
        help="train a model on examples with blocks, or on its own answers by GRPO",
        description="Run it under torchrun or `accelerate launch` for several GPUs. A run that was stopped goes on "
        "from its last checkpoint. See docs/training.md.",
    )
    parser.add_argument("config", help="a recipe (YAML)")
    parser.add_argument("--check", action="store_true", help="read and check the data, show its figures, and stop")
    parser.add_argument(
        "--skip-invalid", action="store_true", help="leave broken rows out instead of refusing to start"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Exit status 0 if the model was trained (or the data is fine), 1 if rows are broken."""
    try:
        import accelerate  # noqa: F401
        import yaml  # noqa: F401

        from multiverse.training import data, report
        from multiverse.training import run as runs
        from multiverse.training.recipe import load_recipe
    except ImportError as error:
        raise TrainingError(f"training needs more packages ({error}): pip install multiverse-engine[train]") from error
    recipe = load_recipe(options.config)
    if recipe.method == "grpo":
        return _grpo(recipe, options.check)
    tokenizer = runs.load_tokenizer(recipe)
    encoder = runs.load_encoder(recipe, tokenizer)
    corpus = data.load_corpus(recipe, encoder)
    figures = data.summary(recipe, corpus, encoder)
    _show(figures, corpus.problems, recipe.output, options.skip_invalid)
    if corpus.problems and not options.skip_invalid:
        print("multiverse train: mend these rows, or leave them out with --skip-invalid", file=sys.stderr)
        return 1
    if not corpus.examples:
        raise TrainingError(f"{options.config}: its data holds no usable example")
    if options.check:
        return 0
    started = report.clock()
    trainer = runs.train(recipe, runs.load_model(recipe), tokenizer, data.rows(recipe, corpus, encoder))
    runs.save(recipe, trainer, tokenizer)
    if trainer.is_world_process_zero():
        report.write(recipe, figures, trainer.state.log_history, started)
        print(f"the model is in {recipe.output}")
    return 0


def _grpo(recipe: Any, check: bool) -> int:
    from multiverse.training.grpo import run as grpo

    _show(grpo.check(recipe), [], recipe.output, False)
    if not check:
        grpo.train(recipe)
        print(f"the model is in {recipe.output}")
    return 0


def _show(figures: dict[str, Any], problems: list[Any], output: str, skipped: bool) -> None:
    table = Table(box=None, show_header=False)
    for name, value in figures.items():
        table.add_row(name, str(value))
    Console(stderr=True).print(table)
    for problem in problems[:SHOWN]:
        print(f"multiverse train: {problem}", file=sys.stderr)
    if problems:
        out = Path(output)
        out.mkdir(parents=True, exist_ok=True)
        (out / "invalid.txt").write_text("".join(f"{problem}\n" for problem in problems), encoding="utf-8")
        count = f"{len(problems)} broken rows{' left out' if skipped else ''}"
        print(f"multiverse train: {count}, listed in {out / 'invalid.txt'}", file=sys.stderr)
