"""A run by a recipe: engine and model, the steps between them, and what is left in the end."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from random import Random
from typing import Any
from urllib.parse import urlsplit

from multiverse.errors import TrainingError
from multiverse.harness.server import Command, Server
from multiverse.structure.binding import bind
from multiverse.structure.dialects import registry
from multiverse.training import run as runs
from multiverse.training.grpo import report
from multiverse.training.grpo.collector import Collector
from multiverse.training.grpo.engines import Answering, connect
from multiverse.training.grpo.settings import Engine, Grpo
from multiverse.training.grpo.trainer import GrpoTrainer
from multiverse.training.prompts import Prompt, read_prompts
from multiverse.training.recipe import Recipe
from multiverse.training.report import clock
from multiverse.training.rollouts import Reader


def load_prompts(recipe: Recipe) -> list[Prompt]:
    """The problems of all sources.

    Raises:
        TrainingError: if there are none, if one has no answer to be graded by, or if the grader is not installed.
    """
    prompts = [prompt for source in recipe.data for prompt in read_prompts(source.path, source.limit)]
    if not prompts:
        raise TrainingError("data: holds no problem")
    graded = any(term.name in ("answer", "shorter") for term in settings_of(recipe).rewards)
    if graded and (without := [prompt.id for prompt in prompts if prompt.answer is None]):
        raise TrainingError(f"data: {len(without)} problems have no `answer` to be graded by, first {without[0]}")
    if graded and settings_of(recipe).grader == "math" and find_spec("math_verify") is None:
        raise TrainingError("grader: math needs more packages: pip install 'multiverse-engine[eval]', or say exact")
    return prompts


def settings_of(recipe: Recipe) -> Grpo:
    """What stands under `grpo`."""
    assert recipe.grpo is not None
    return recipe.grpo


def batches(prompts: list[Prompt], settings: Grpo, seed: int) -> list[list[Prompt]]:
    """The problems of every update: all of them in random order, then again in another; a function of its arguments."""
    rng, waiting, found = Random(seed), list[Prompt](), list[list[Prompt]]()
    for _ in range(settings.steps):
        while len(waiting) < settings.prompts:
            waiting += rng.sample(prompts, len(prompts))
        found += [waiting[: settings.prompts]] * settings.passes
        waiting = waiting[settings.prompts :]
    return found


@contextmanager
def engine_of(recipe: Recipe, tokenizer: Any) -> Iterator[Answering]:
    """The engine of a recipe, with its server if it says how to start one.

    Raises:
        UnsupportedHostError: if that server does not come up, with the end of its log.
    """
    settings = settings_of(recipe)
    binding = bind(registry.get(recipe.dialect), tokenizer)
    reader = Reader(binding, settings.temperature, separators=recipe.separators)
    with _serving(settings.engine):
        yield connect(settings.engine, recipe.model, reader)


@contextmanager
def _serving(engine: Engine) -> Iterator[None]:
    if engine.serve is None or engine.url is None:
        yield
        return
    port = urlsplit(engine.url).port
    if port is None:
        raise TrainingError(f"engine: url: must name the port at which `serve` answers, is {engine.url}")
    environment = {name: str(value) for name, value in engine.environment.items()}
    with Server(Command(tuple(shlex.split(engine.serve)), environment), port) as server:
        server.wait(900)
        yield


def make_trainer(recipe: Recipe, engine: Answering, tokenizer: Any, prompts: list[Prompt]) -> GrpoTrainer:
    """A trainer that learns from what `engine` answers."""
    settings, model = settings_of(recipe), runs.load_model(recipe)
    arguments = runs.arguments(recipe)
    if arguments.world_size > 1:
        raise TrainingError("method: grpo runs in one process: several engines answer behind one address (docs/rl.md)")
    trainer = GrpoTrainer(
        model=model,
        args=arguments,
        optimizers=(runs.optimizer(recipe, model), None),
        train_dataset=batches(prompts, settings, recipe.seed),
        data_collator=_only,
        processing_class=tokenizer,
    )
    runs.set_rates(recipe, trainer, model, tokenizer)
    binding = bind(registry.get(recipe.dialect), tokenizer)
    trainer.collector = Collector(engine, tokenizer, binding, settings)
    trainer.settings, trainer.attention = settings, recipe.attention
    trainer.reference = runs.load_model(recipe).requires_grad_(False).to(arguments.device) if settings.kl else None
    held_out = settings.held_out
    trainer.held_out = read_prompts(held_out.path, held_out.limit) if held_out else []
    return trainer


def _only(batch: list[list[Prompt]]) -> list[Prompt]:
    """A batch of the loader, which holds the problems of one step."""
    (prompts,) = batch
    return prompts


def train(recipe: Recipe) -> None:
    """Train by `recipe` and leave model, log and curves in its output directory; goes on where it stopped."""
    started, tokenizer, prompts = clock(), runs.load_tokenizer(recipe), load_prompts(recipe)
    with engine_of(recipe, tokenizer) as engine:
        trainer = make_trainer(recipe, engine, tokenizer, prompts)
        runs.resume(recipe, trainer)
        trainer.measure()
    runs.save(recipe, trainer, tokenizer)
    report.write(recipe, len(prompts), trainer.state.log_history, started)


def check(recipe: Recipe) -> dict[str, Any]:
    """Figures to look at before a run."""
    prompts, settings = load_prompts(recipe), settings_of(recipe)
    figures = {"problems": len(prompts), "answers": settings.steps * settings.prompts * settings.answers}
    held_out = settings.held_out
    return figures | ({"held out": len(read_prompts(held_out.path, held_out.limit))} if held_out else {})
