"""A recipe of method: grpo that takes seconds: the random model of `small.py`, the reference decoder as its engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from small import DIALECT, TOKENIZER, answer, save_model, write_rows

from multiverse import Limits, bind
from multiverse.oracle import generate, load
from multiverse.training.grpo.answer import Answer
from multiverse.training.grpo.engines import Sampling
from multiverse.training.grpo.settings import Engine, Grpo, HeldOut, Term
from multiverse.training.recipe import Recipe, Source
from multiverse.training.rollouts import Reader, Rollout

BINDING = bind(DIALECT, TOKENIZER)
ROWS = [{"id": f"r{i}", "question": f"q{i}", "answer": "5"} for i in range(5)]
HELD_OUT = [
    {**ROWS[0], "parallel": answer("a", "b"), "sequential": "s"},
    {**ROWS[1], "parallel": "s", "sequential": "s"},
]
LOW = 192
"""Half of the ids."""


def low(answers: Sequence[Answer]) -> list[float]:
    """A reward: the share of the lower half of the vocabulary."""
    found = [answer.rollout.strands[0].token_ids for answer in answers]
    return [sum(token < LOW for token in ids) / len(ids) for ids in found]


class Oracle:
    """The reference decoder, with the weights that it was given last."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.model: Any = None

    def load(self, path: str, version: str) -> None:
        self.model = load(path)[0]
        self.loaded.append(version)

    def answer(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Rollout]]:
        reader = Reader(BINDING, sampling.temperature or 1.0, weight_version=self.loaded[-1])
        options = {"do_sample": True, "temperature": sampling.temperature} if sampling.temperature else {}
        found = []
        for at, prompt in enumerate(prompts):
            seeds = [sampling.seed + at * sampling.count + number for number in range(sampling.count)]
            limits = Limits(max_tokens=sampling.max_tokens)
            each = [generate(self.model, TOKENIZER, [prompt], limits=limits, seed=seed, **options)[0] for seed in seeds]
            found.append(
                [reader.generation(one, f"{at}-{seed}", str(at)) for seed, one in zip(seeds, each, strict=True)]
            )
        return found


def make_recipe(directory: Path) -> Recipe:
    """Its model and its problems are written into `directory`."""
    settings = Grpo(
        engine=Engine("vllm", "http://127.0.0.1:1"),
        rewards=[Term(f"{__name__}:low")],
        steps=6,
        prompts=2,
        answers=4,
        max_tokens=10,
        grader="exact",
        held_out=HeldOut(write_rows(directory / "held_out.jsonl", HELD_OUT), every=3),
    )
    return Recipe(
        model=save_model(directory / "base"),
        data=[Source(write_rows(directory / "d.jsonl", ROWS))],
        output=str(directory / "out"),
        learning_rate=1e-2,
        warmup=0.0,
        schedule="constant",
        save_every=2,
        log_every=1,
        threads=1,
        method="grpo",
        grpo=settings,
    )


def changed(recipe: Recipe, **options: Any) -> Recipe:
    assert recipe.grpo is not None
    return replace(recipe, grpo=replace(recipe.grpo, **options))
