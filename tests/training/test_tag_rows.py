"""In every mode of training, tied or not, the tags' rows are learnt: as they are read and as they are written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import DIALECT, TOKENIZER, answer, model, untagged_tokenizer, write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from multiverse.errors import TrainingError
from multiverse.training import run
from multiverse.training.data import load_corpus, rows
from multiverse.training.recipe import Lora, Phase, Recipe, Source

ROWS = [{"id": f"r{i}", "question": f"q{i}", "parallel": answer(f"a{i}", "b"), "sequential": f"s{i}"} for i in range(4)]
TAGS = list(DIALECT.tags.values())
SCRATCH = {
    "model_type": "qwen3",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
MODES: dict[str, dict[str, Any]] = {
    "all weights": {},
    "muon": {"optimizer": "muon"},
    "frozen": {"freeze_layers": 2, "weight_decay": 0.1},
    "lora": {"lora": Lora(rank=4, alpha=8)},
    "scratch": {"scratch": SCRATCH},
}


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def tied(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def recipe(tmp_path: Path, tied: bool) -> Recipe:
    """Of a base model that knows no tags."""
    base = tmp_path / "base"
    model(tied=tied).save_pretrained(base)
    untagged_tokenizer().save_pretrained(base)
    data = [Source(write_rows(tmp_path / "d.jsonl", ROWS))]
    options: dict[str, Any] = {"max_length": 256, "learning_rate": 1e-2, "threads": 1, "phases": [Phase(epochs=3)]}
    return Recipe(model=str(base), data=data, output=str(tmp_path / "out"), **options)


def mode(recipe: Recipe, name: str, tied: bool) -> Recipe:
    options = MODES[name]
    if "scratch" in options:
        options = {"scratch": SCRATCH | {"tie_word_embeddings": tied}}
    return replace(recipe, **options)


def weights(lm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The matrices of the input and of the output."""
    return lm.get_input_embeddings().weight.detach().clone(), lm.get_output_embeddings().weight.detach().clone()


def train(recipe: Recipe) -> tuple[list[int], tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """The tags' ids, both matrices as they began, and as they are in the checkpoint."""
    tokenizer = run.load_tokenizer(recipe)
    encoder = run.load_encoder(recipe, tokenizer)
    lm = run.load_model(recipe)
    ids = run.tag_ids(recipe, tokenizer)
    before = weights(lm)
    run.save(recipe, run.train(recipe, lm, tokenizer, rows(recipe, load_corpus(recipe, encoder), encoder)), tokenizer)
    saved = AutoModelForCausalLM.from_pretrained(recipe.output)
    assert AutoTokenizer.from_pretrained(recipe.output).convert_tokens_to_ids(TAGS) == ids
    return ids, before, weights(saved)


@pytest.mark.parametrize("name", MODES)
def test_both_rows_of_every_tag_are_learnt_and_differ_from_their_partners(
    recipe: Recipe, name: str, tied: bool
) -> None:
    tags, before, after = train(mode(recipe, name, tied))
    for old, new in zip(before, after, strict=True):
        moved = (new[tags] - old[tags]).abs().amax(1)
        assert moved.min() > 1e-3, f"{TAGS[int(moved.argmin())]} was not learnt"
        assert (new[tags[::2]] - new[tags[1::2]]).abs().amax(1).min() > 1e-2, "opening and closing"
    assert torch.equal(*after) == tied


@pytest.mark.parametrize("name", ["frozen", "lora"])
def test_of_other_rows_only_those_of_a_whole_output_are_learnt(recipe: Recipe, name: str, tied: bool) -> None:
    tags, before, after = train(mode(recipe, name, tied))
    inputs, outputs = [
        {int(row) for row in (new != old).any(1).nonzero()} - set(tags) for old, new in zip(before, after, strict=True)
    ]
    assert bool(inputs) == (name == "frozen" and tied), "the same matrix as the output"
    assert bool(outputs) == (name == "frozen")


@pytest.mark.parametrize("name", MODES)
def test_tags_learn_at_a_rate_of_their_own(recipe: Recipe, name: str, tied: bool) -> None:
    """One step of AdamW moves a weight by its rate, whatever the gradient: by 1e-5, and by a hundred times as much."""
    once = mode(replace(recipe, phases=[Phase()], batch_rows=4, warmup=0.0, schedule="constant"), name, tied)
    once = replace(once, learning_rate=1e-5, weight_decay=0.0, tags_learning_rate=1e-3)
    tags, before, after = train(once)
    others = [row for row in range(len(TOKENIZER)) if row not in tags]
    for old, new in zip(before, after, strict=True):
        assert (new[tags] - old[tags]).abs().amax(1) == pytest.approx(1e-3, rel=0.02)
        assert (new[others] - old[others]).abs().max() < 1.1e-5


@pytest.mark.parametrize("tied", [False], indirect=True, ids=["untied"])
def test_adapters_on_the_output_beside_its_rows_are_refused(recipe: Recipe) -> None:
    with pytest.raises(TrainingError, match=r"lora: .*lm_head"):
        run.load_model(replace(recipe, lora=Lora(targets=["q_proj", "lm_head"])))
