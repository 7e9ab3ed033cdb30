"""A model learns from its own answers: a random model of three layers, the reference decoder as its engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small import DIALECT, TOKENIZER, answer, save_model, write_rows
from transformers import TrainerCallback

from multiverse import Limits, bind
from multiverse.cli import main
from multiverse.errors import TrainingError
from multiverse.oracle import generate, load
from multiverse.training.grpo import run as grpo
from multiverse.training.grpo.answer import Answer
from multiverse.training.grpo.engines import Sampling
from multiverse.training.grpo.loss import clipped, divergence
from multiverse.training.grpo.settings import Engine, Grpo, HeldOut, Term
from multiverse.training.recipe import Recipe, Source, load_recipe
from multiverse.training.rollouts import Reader, Rollout
from multiverse.training.rollouts.batch import Batch

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


class Deaf(Oracle):
    """Says that it took weights, and keeps those it had."""

    def load(self, path: str, version: str) -> None:
        if not self.loaded:
            super().load(path, version)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    settings = Grpo(
        engine=Engine("vllm", "http://127.0.0.1:1"),
        rewards=[Term(f"{__name__}:low")],
        steps=6,
        prompts=2,
        answers=4,
        max_tokens=10,
        grader="exact",
        held_out=HeldOut(write_rows(tmp_path / "held_out.jsonl", HELD_OUT), every=3),
    )
    return Recipe(
        model=save_model(tmp_path / "base"),
        data=[Source(write_rows(tmp_path / "d.jsonl", ROWS))],
        output=str(tmp_path / "out"),
        learning_rate=1e-2,
        warmup=0.0,
        schedule="constant",
        save_every=2,
        log_every=1,
        threads=1,
        method="grpo",
        grpo=settings,
    )


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


def changed(recipe: Recipe, **options: Any) -> Recipe:
    assert recipe.grpo is not None
    return replace(recipe, grpo=replace(recipe.grpo, **options))


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


def write(recipe: Recipe, path: Path, **fields: Any) -> str:
    engine = {"host": "vllm", "url": "http://127.0.0.1:1"}
    settings = {"engine": engine, "rewards": [{"name": "answer"}], "grader": "exact"}
    given = {"model": recipe.model, "output": recipe.output, "data": [{"path": recipe.data[0].path}], "method": "grpo"}
    path.write_text(json.dumps(given | {"grpo": settings | fields.pop("grpo", {})} | fields))
    return str(path)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"method": "examples"}, "method: grpo and the fields under `grpo` go together"),
        ({"causal": 0.5, "lora": {}}, "causal, lora: can't be combined with method: grpo"),
        ({"grpo": {"answers": 1}}, "answers: must be at least 2, is 1"),
        ({"grpo": {"temperature": 0}}, "temperature: must be above 0"),
        ({"grpo": {"clip": 1.5}}, "clip must be between 0 and 1"),
        ({"grpo": {"rewards": [{"name": "x", "wieght": 1}]}}, r"rewards\[0\]: unknown field wieght"),
        ({"grpo": {"engine": {"host": "vllm", "serve": "vllm serve"}}}, "say at which `url`"),
        ({"grpo": {"engine": {"host": "vllm", "url": "http://x:1", "options": {"a": 1}}}}, "leave `url` out"),
    ],
)
def test_a_recipe_that_means_nothing_is_refused(
    recipe: Recipe, tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(TrainingError, match=reason):
        load_recipe(write(recipe, tmp_path / "r.yaml", **fields))


def test_problems_are_checked_before_anything_runs(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", write(recipe, tmp_path / "r.yaml"), "--check"]) == 0
    assert "answers" in capsys.readouterr().err
    source = write_rows(tmp_path / "none.jsonl", [ROWS[0], {"id": "r9", "question": "q"}])
    config = write(recipe, tmp_path / "r.yaml", data=[{"path": source}])
    assert main(["train", config, "--check"]) != 0
    assert "1 problems have no `answer` to be graded by, first r9" in capsys.readouterr().err


def test_a_grader_that_is_not_installed_is_named(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpo, "find_spec", lambda _: None)
    with pytest.raises(TrainingError, match=r"pip install 'multiverse-engine\[eval\]', or say exact"):
        grpo.load_prompts(changed(recipe, rewards=[Term("answer")], grader="math"))


def test_a_server_that_is_not_there_is_named(recipe: Recipe) -> None:
    with pytest.raises(TrainingError, match=r"http://127.0.0.1:1/v1/models: no answer"):
        grpo.train(recipe)
