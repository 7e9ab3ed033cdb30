"""A model is loaded as its files say, or refused with the remedy: other ids or random rows would spoil the rest."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import TOKENIZER, model, save_model
from transformers import AutoTokenizer, Qwen2Tokenizer

from multiverse.errors import TrainingError, UnsupportedModelError
from multiverse.models import TINY
from multiverse.models.loading import load_model, load_tokenizer, save_tokenizer
from multiverse.oracle import load
from multiverse.training import run
from multiverse.training.recipe import Recipe, Source


def tokenizer_files(directory: Path, **settings: Any) -> str:
    """The embedded model's tokenizer under other settings; one that is `None` is left out."""
    directory.mkdir()
    shutil.copy(TINY / "tokenizer.json", directory)
    config = json.loads((TINY / "tokenizer_config.json").read_text()) | settings
    given = {key: value for key, value in config.items() if value is not None}
    (directory / "tokenizer_config.json").write_text(json.dumps(given))
    return str(directory)


@pytest.mark.parametrize("cls", ["TokenizersBackend", "PreTrainedTokenizerFast"])
def test_a_class_that_follows_the_file_is_taken(cls: str, tmp_path: Path) -> None:
    found = load_tokenizer(tokenizer_files(tmp_path / "t", tokenizer_class=cls))
    assert found.encode("A = sum 12345\n\n") == TOKENIZER.encode("A = sum 12345\n\n")


def test_a_class_that_cuts_otherwise_is_refused_with_the_remedy(tmp_path: Path) -> None:
    name = tokenizer_files(tmp_path / "t", tokenizer_class="Qwen2Tokenizer")
    with pytest.raises(UnsupportedModelError) as caught:
        load_tokenizer(name)
    message = str(caught.value)
    assert f"the tokenizer of {name} is loaded as Qwen2Tokenizer, which cuts 'Find the sum" in message
    assert "set tokenizer_class in tokenizer_config.json to PreTrainedTokenizerFast" in message
    (Path(name) / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    assert load_tokenizer(name).encode("12345") == TOKENIZER.encode("12345")


def test_a_model_type_whose_class_always_wins_is_refused_with_what_is_left(tmp_path: Path) -> None:
    name = tokenizer_files(tmp_path / "t", tokenizer_class="PreTrainedTokenizerFast")
    (Path(name) / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(UnsupportedModelError, match="builds Qwen2Tokenizer for its model_type whatever"):
        load_tokenizer(name)


def test_training_and_the_oracle_refuse_it_alike(tmp_path: Path) -> None:
    name = save_model(tmp_path / "m")
    config = Path(name) / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": "Qwen2Tokenizer"}))
    with pytest.raises(TrainingError, match="set tokenizer_class"):
        run.load_tokenizer(Recipe(model=name, data=[Source("d.jsonl")], output="o"))
    with pytest.raises(UnsupportedModelError, match="set tokenizer_class"):
        load(name)


def test_what_is_saved_is_loaded_as_it_was(tmp_path: Path) -> None:
    """Whatever class it had: under its own name `Qwen2Tokenizer` would be built anew from the vocabulary."""
    odd = Qwen2Tokenizer.from_pretrained(str(TINY))
    odd.backend_tokenizer.pre_tokenizer = TOKENIZER.backend_tokenizer.pre_tokenizer
    line = "A = sum 12345\n\n  B"
    odd.save_pretrained(tmp_path / "plain")
    assert AutoTokenizer.from_pretrained(str(tmp_path / "plain")).encode(line) != odd.encode(line)
    save_tokenizer(odd, tmp_path / "ours")
    assert load_tokenizer(str(tmp_path / "ours")).encode(line) == odd.encode(line) == TOKENIZER.encode(line)


def change_weights(directory: Path, change: Any, **config: Any) -> str:
    """A saved model with other weights in its file."""
    model(tied=config.get("tied", False)).save_pretrained(directory)
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return str(directory)


def test_an_output_matrix_that_is_missing_is_refused(tmp_path: Path) -> None:
    name = change_weights(tmp_path / "m", lambda weights: weights.pop("lm_head.weight"))
    with pytest.raises(
        UnsupportedModelError, match=r"its files lack lm_head.weight, which would be random; set tie_word"
    ):
        load_model(name)
    TOKENIZER.save_pretrained(name)
    with pytest.raises(TrainingError, match=r"lack lm_head\.weight"):
        run.load_model(Recipe(model=name, data=[Source("d.jsonl")], output="o"))


def test_a_layer_that_is_missing_is_refused(tmp_path: Path) -> None:
    name = change_weights(tmp_path / "m", lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(UnsupportedModelError, match=r"lack model.layers.1.mlp.up_proj.weight, which would be random$"):
        load_model(name)


@pytest.mark.parametrize("same", [True, False])
def test_a_tied_model_with_another_output_matrix_in_its_file_is_warned_of(
    same: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def add(weights: dict[str, torch.Tensor]) -> None:
        rows = weights["model.embed_tokens.weight"]
        weights["lm_head.weight"] = rows.clone() if same else torch.zeros_like(rows)

    with caplog.at_level(logging.WARNING):
        load_model(change_weights(tmp_path / "m", add, tied=True))
    assert ("hold an output matrix of their own" in caplog.text) == (not same)
