"""A recipe says everything about a run, and a wrong one is refused with the name of the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiverse.errors import TrainingError
from multiverse.training.recipe import Lora, Phase, Source, load_recipe
from multiverse.training.run import arguments

RECIPES = Path(__file__).parents[2] / "recipes"
BASE = "model: m\noutput: o\ndata: [{path: d.jsonl}]\n"


def load(directory: Path, text: str) -> object:
    path = directory / "r.yaml"
    path.write_text(text)
    return load_recipe(path)


def test_nested_fields_become_what_their_types_say(tmp_path: Path) -> None:
    text = BASE + "lora: {rank: 8}\nphases: [{parallel: 0}, {epochs: 2, parallel: 0.5}]\nlearning_rate: 1\n"
    recipe = load(tmp_path, text)
    assert recipe.data == [Source("d.jsonl")]
    assert recipe.lora == Lora(rank=8)
    assert recipe.phases == [Phase(1, 0.0), Phase(2, 0.5)]
    assert isinstance(recipe.learning_rate, float)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model: m\n", "field data, output is missing"),
        (BASE + "lr: 1\n", "unknown field lr; known are model, data"),
        (BASE + "batch_rows: many\n", "batch_rows: must be of type int, is 'many'"),
        (BASE + "pack: 1\n", "pack: must be of type bool, is 1"),
        (BASE + "batch_rows: true\n", "batch_rows: must be of type int, is True"),
        (BASE + "separators: both\n", "separators: must be one of overlap, advance, is 'both'"),
        (BASE + "phases: [{share: 1}]\n", "phases[0]: unknown field share"),
        (BASE + "phases: [{parallel: 2}]\n", "phases[0]: parallel: must be a share between 0 and 1, is 2.0"),
        (BASE + "phases: []\n", "phases: must be a list"),
        (BASE + "lora: {}\nfreeze_layers: 2\n", "lora: can't be combined with freeze_layers"),
        (BASE + "scratch: qwen3\n", "scratch: must be of type dict, is 'qwen3'"),
        (BASE + "scratch: {model_type: qwen3}\nfreeze_layers: 1\n", "scratch: can't be combined with lora or freeze"),
        (BASE + "optimizer: sgd\n", "optimizer: must be one of adamw, muon, is 'sgd'"),
        (BASE + "optimizer: muon\nlora: {}\n", "optimizer: muon can't be combined with lora or fsdp"),
        (BASE + "tags_learning_rate: 0.01\nfsdp: {version: 2}\n", "tags_learning_rate: can't be combined with fsdp"),
        (BASE + "learning_rate: 0\n", "learning_rate: must be above 0, is 0.0"),
        (BASE + "tags_learning_rate: fast\n", "tags_learning_rate: must be of type float, is 'fast'"),
        (BASE + "decay: 2\n", "decay: must be a share between 0 and 1, is 2.0"),
        ("just text", "must be a mapping of fields"),
        ("a: [", "can't be read"),
    ],
)
def test_a_wrong_recipe_is_refused_by_file_and_field(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(TrainingError) as caught:
        load(tmp_path, text)
    assert "r.yaml" in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_that_comes_with_the_package_loads(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.output.startswith("build/")


def test_trainer_gets_what_the_recipe_says(tmp_path: Path) -> None:
    recipe = load(tmp_path, BASE + "learning_rate: 0.5\nbatch_rows: 3\nseed: 9\nwarmup: 0.25\n")
    settings = arguments(recipe)
    assert (settings.learning_rate, settings.gradient_accumulation_steps, settings.seed) == (0.5, 3, 9)
    assert settings.get_warmup_steps(100) == 25
    assert settings.per_device_train_batch_size == 1
