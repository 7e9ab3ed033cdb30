"""A model learns from its own answers: a random model of three layers, the reference decoder as its engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_grpo import ROWS, Oracle, changed, make_recipe
from transformers import TrainerCallback

from multiverse.errors import TrainingError
from multiverse.oracle import load
from multiverse.training.grpo import run as grpo
from multiverse.training.grpo.loss import clipped, divergence
from multiverse.training.grpo.settings import Term
from multiverse.training.recipe import Recipe, load_recipe
from multiverse.training.rollouts.batch import Batch


class Deaf(Oracle):
    """Says that it took weights, and keeps those it had."""

    def load(self, path: str, version: str) -> None:
        if not self.loaded:
            super().load(path, version)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return make_recipe(tmp_path)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Oracle:
    found = Oracle()
    serve(monkeypatch, lambda: found)
    return found


def serve(monkeypatch: pytest.MonkeyPatch, engine: Callable[[], Oracle]) -> None:
    @contextmanager
    def engine_of(*_: Any) -> Iterator[Oracle]:
        yield engine()

    monkeypatch.setattr(grpo, "engine_of", engine_of)


def logged(recipe: Recipe, key: str) -> list[dict[str, Any]]:
    log = json.loads(Path(recipe.output, "train_log.json").read_text())["history"]
    return [entry for entry in log if key in entry]


def history(recipe: Recipe, key: str) -> list[float]:
    return [entry[key] for entry in logged(recipe, key)]


def weights(recipe: Recipe) -> dict[str, torch.Tensor]:
    return load_file(Path(recipe.output, "model.safetensors"))


def test_answers_get_better_and_the_engine_gets_the_weights_of_each_step(recipe: Recipe, engine: Oracle) -> None:
    grpo.train(changed(recipe, steps=12, prompts=5, answers=8))
    reward = history(recipe, "reward")
    assert len(reward) == 12
    assert sum(reward[-3:]) / 3 > sum(reward[:3]) / 3 + 0.2
    assert engine.loaded[-1] == "12"
    assert list(dict.fromkeys(engine.loaded)) == [str(step) for step in range(13)]
    assert max(history(recipe, "logprob_difference")) < 1e-4, "the trainer says what the engine said"
    assert load(recipe.output)[0].config.use_cache


def test_held_out_problems_are_measured_before_between_and_after(recipe: Recipe, engine: Oracle) -> None:  # noqa: ARG001
    grpo.train(recipe)
    curve = logged(recipe, "held_out_right")
    assert [entry["step"] for entry in curve] == [0, 3, 6]
    assert {entry["held_out_problems"] for entry in curve} == {2}
    assert {entry["held_out_fork_right"] for entry in curve} == {0.5}, "a random model never forks"
    assert {entry["held_out_fork_right_block"] for entry in curve} == {0.0}
    for name in ("recipe.yaml", "README.md", "curves.png"):
        assert Path(recipe.output, name).stat().st_size
    assert load_recipe(Path(recipe.output, "recipe.yaml")) == recipe


def test_several_passes_learn_from_the_same_answers(recipe: Recipe, engine: Oracle) -> None:
    grpo.train(changed(recipe, passes=3, steps=2, held_out=None))
    assert engine.loaded == ["0", "3"]
    assert len(history(recipe, "reward")) == 2
    assert len(history(recipe, "loss")) == 6


def test_every_problem_is_asked_once_before_one_comes_again(recipe: Recipe) -> None:
    prompts = grpo.load_prompts(recipe)
    settings = changed(recipe, steps=5, prompts=2, passes=2).grpo
    assert settings is not None
    found = grpo.batches(prompts, settings, seed=0)
    assert found[::2] == found[1::2], "both passes of a step"
    asked = [prompt.id for step in found[::2] for prompt in step]
    first, second = asked[:5], asked[5:]
    assert sorted(first) == sorted(second) == [row["id"] for row in ROWS]
    assert first != second, "in another order"
    assert found == grpo.batches(prompts, settings, seed=0) != grpo.batches(prompts, settings, seed=1)


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        control.should_training_stop = state.global_step >= self.step


@pytest.mark.parametrize("passes", [1, 2])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    recipe: Recipe, engine: Oracle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, passes: int
) -> None:
    whole = replace(changed(recipe, passes=passes), output=str(tmp_path / "whole"))
    grpo.train(whole)
    stopped, make = changed(recipe, passes=passes), grpo.make_trainer
    with monkeypatch.context() as patched:
        patched.setattr(grpo, "make_trainer", lambda *a: _with(make(*a), StopAt(4)))
        grpo.train(stopped)
    assert engine.loaded[-1] == "4"
    grpo.train(stopped)
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(stopped).items())


def _with(trainer: Any, callback: TrainerCallback) -> Any:
    trainer.add_callback(callback)
    return trainer


def test_an_engine_that_did_not_take_the_weights_is_not_learnt_from(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, Deaf)
    with pytest.raises(TrainingError, match=r"answers with weights \{'0'\}, it was given '1'"):
        grpo.train(recipe)


def test_a_group_whose_answers_are_worth_the_same_teaches_nothing(recipe: Recipe, engine: Oracle) -> None:  # noqa: ARG001
    grpo.train(changed(recipe, rewards=[Term("answer")], steps=2))
    assert history(recipe, "learnt_groups") == [0, 0]
    assert history(recipe, "serial_collapse") == [1, 1]
    before = load_file(Path(recipe.model, "model.safetensors"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(recipe).items())


def test_sharing_what_answers_begin_with_changes_nothing_but_rounding(
    recipe: Recipe,
    engine: Oracle,  # noqa: ARG001
    tmp_path: Path,
) -> None:
    apart = replace(changed(recipe, share=False, steps=2), output=str(tmp_path / "apart"))
    shared = changed(recipe, steps=2)
    grpo.train(apart)
    grpo.train(shared)
    assert history(shared, "reward") == history(apart, "reward")
    for name, loss in zip(history(shared, "loss"), history(apart, "loss"), strict=True):
        assert name == pytest.approx(loss, abs=1e-5)


def batch(old: list[float], advantages: list[float]) -> Batch:
    count = len(old)
    numbers, ones = torch.arange(count), torch.ones(count)
    return Batch({}, numbers, torch.tensor(old), ones, torch.tensor(advantages), numbers)


def test_a_token_that_has_moved_far_enough_is_left_alone(recipe: Recipe) -> None:
    """Better ones at 1.4 times as probable, worse ones at 0.8 times; what is on the wrong side always counts."""
    logprobs = torch.log(torch.tensor([1.1, 1.3, 1.5, 0.5, 0.9, 0.7, 1.5])).requires_grad_()
    advantages = [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0]
    settings = changed(recipe, clip_high=0.4).grpo
    assert settings is not None
    found = clipped(batch([0.0] * 7, advantages), logprobs, settings)
    assert found.tolist() == pytest.approx([-1.1, -1.3, -1.4, -0.5, 0.9, 0.8, 1.5])
    found.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-1.1, -1.3, 0, -0.5, 0.9, 0, 1.5])


def test_divergence_from_the_first_model_pulls_back() -> None:
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    found = divergence(logprobs, torch.tensor([-1.0, -1.0]))
    assert found.tolist() == pytest.approx([0.0, torch.e - 2])
    found.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad[0] == 0
    assert logprobs.grad[1] < 0, "a step down the gradient makes the token more probable again"


def test_with_divergence_the_run_stays_nearer(recipe: Recipe, engine: Oracle, tmp_path: Path) -> None:  # noqa: ARG001
    near, free = changed(recipe, kl=100.0), replace(changed(recipe, kl=1e-9), output=str(tmp_path / "free"))
    grpo.train(near)
    grpo.train(free)
    assert history(near, "divergence")[0] == history(free, "divergence")[0] == pytest.approx(0, abs=1e-6)
    assert 0 < history(near, "divergence")[-1] < history(free, "divergence")[-1] * 0.7
