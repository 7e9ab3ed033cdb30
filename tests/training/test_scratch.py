"""A recipe that begins with random weights: which model it builds, that it learns, that it can be stopped."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small import TOKENIZER, answer, write_rows
from transformers import AutoModelForCausalLM

from multiverse.errors import TrainingError
from multiverse.training import report, run, scratch
from multiverse.training.data import load_corpus, rows
from multiverse.training.muon import Muon, MuonAdamW, orthogonal
from multiverse.training.recipe import Phase, Recipe, Source

FIELDS = {
    "model_type": "qwen3",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
ROWS = [{"question": f"q{i}", "parallel": answer(f"a{i}", "b"), "sequential": f"s{i}"} for i in range(6)]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    TOKENIZER.save_pretrained(tmp_path / "tokenizer")
    return Recipe(
        model=str(tmp_path / "tokenizer"),
        scratch=FIELDS,
        data=[Source(write_rows(tmp_path / "d.jsonl", ROWS))],
        output=str(tmp_path / "out"),
        phases=[Phase(epochs=10)],
        max_length=256,
        optimizer="muon",
        learning_rate=1e-2,
        schedule="warmup_stable_decay",
        save_every=4,
        log_every=1,
        threads=1,
    )


def train(recipe: Recipe) -> run.RowTrainer:
    tokenizer = run.load_tokenizer(recipe)
    encoder = run.load_encoder(recipe, tokenizer)
    trainer = run.train(recipe, run.load_model(recipe), tokenizer, rows(recipe, load_corpus(recipe, encoder), encoder))
    run.save(recipe, trainer, tokenizer)
    return trainer


def entries(trainer: run.RowTrainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def test_the_model_is_what_the_fields_say_with_a_vocabulary_that_two_ranks_can_share(recipe: Recipe) -> None:
    model = run.load_model(recipe)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert {name: getattr(model.config, name) for name in FIELDS} == FIELDS
    assert len(TOKENIZER) < model.config.vocab_size == 384
    assert model.config._attn_implementation == recipe.attention


def test_what_is_added_to_the_residual_stream_starts_small(recipe: Recipe) -> None:
    model = run.load_model(recipe)
    layer = model.model.layers[0]
    found = {
        "embedding": model.get_input_embeddings().weight.detach().std(),
        "into the layer": layer.mlp.up_proj.weight.detach().std() * 32**0.5,
        "into the stream": layer.mlp.down_proj.weight.detach().std() * 64**0.5,
    }
    expected = {"embedding": 0.02, "into the layer": 0.5, "into the stream": 0.1}
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=0.1)
    assert bool((layer.input_layernorm.weight == 1).all())


def test_the_seed_decides_the_weights(recipe: Recipe) -> None:
    first, again, other = (
        run.load_model(one).model.layers[0].mlp.up_proj.weight for one in (recipe, recipe, replace(recipe, seed=1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"hidden_size": 32}, "scratch: field model_type is missing"),
        ({"model_type": "qwen33"}, "scratch: model_type: 'qwen33' is not known"),
        ({"model_type": "qwen3", "layers": 2}, "scratch: unknown field layers; known are .*num_hidden_layers"),
        ({"model_type": "qwen3", "hidden_size": "big"}, "scratch: .*'hidden_size'(.|\n)*expected int, got str"),
        ({"model_type": "clip"}, "scratch: Unrecognized configuration class"),
    ],
)
def test_wrong_fields_are_refused_by_name(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(TrainingError, match=reason):
        scratch.build(fields, TOKENIZER, "sdpa")


def test_it_learns_and_leaves_a_checkpoint_that_ends_its_turn_by_itself(recipe: Recipe) -> None:
    started = report.clock()
    trainer = train(recipe)
    losses = entries(trainer, "loss")
    assert losses[-1] < losses[0] / 2
    model = AutoModelForCausalLM.from_pretrained(recipe.output)
    assert model.config.architectures == ["Qwen3ForCausalLM"]
    assert model.generation_config.eos_token_id == [TOKENIZER.eos_token_id, TOKENIZER.pad_token_id]
    assert model.generation_config.max_new_tokens == 256
    assert model.config.use_cache
    figures = {"examples": 6, "with blocks": 6, "tokens": 1, "learnt tokens": 1}
    report.write(recipe, figures, trainer.state.log_history, started)
    card = (Path(recipe.output) / "README.md").read_text()
    assert "base_model" not in card
    assert "A qwen3 model, trained from random weights to write blocks" in card


def test_the_rate_rises_stays_and_falls_to_a_hundredth(recipe: Recipe) -> None:
    trainer = train(replace(recipe, phases=[Phase(epochs=6)], pack=False, warmup=0.25, decay=0.25))  # 36 steps
    rates = entries(trainer, "learning_rate")  # of the first group, which is Muon's
    assert rates[0] == pytest.approx(0.0002)
    assert rates[9:27] == [0.02] * 18
    assert all(before > after for before, after in pairwise(rates[27:]))
    groups = trainer.lr_scheduler.get_last_lr()
    assert groups == pytest.approx([0.0002, 0.0001])


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(recipe: Recipe) -> None:
    """With both optimisers' states and the schedule."""
    whole = replace(recipe, phases=[Phase(epochs=6)], pack=False, save_every=20)
    train(whole)
    expected = load_file(Path(recipe.output) / "model.safetensors")
    (Path(recipe.output) / "checkpoint-36").rename(Path(recipe.output) / "finished")
    for path in Path(recipe.output).glob("model*"):
        path.unlink()
    trainer = train(whole)  # finds checkpoint-20
    assert len(entries(trainer, "loss")) == 36, "the log goes on as well"
    assert trainer.state.global_step == 36
    found = load_file(Path(recipe.output) / "model.safetensors")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_muon_steps_as_torch_does_to_the_rounding_of_bfloat16() -> None:
    torch.manual_seed(0)
    for shape in ((48, 16), (16, 48)):
        start = torch.randn(shape)
        ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
        steppers = [Muon([ours], 0.02, 0.01), torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.01)]
        for _ in range(3):
            ours.grad = torch.randn(shape)
            theirs.grad = ours.grad.clone()
            for stepper in steppers:
                stepper.step()
        assert (ours - theirs).norm() < 0.03 * (ours - start).norm()


def test_muon_gives_every_direction_about_the_same_weight() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(48, 16)))
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


def test_matrices_go_to_muon_and_embeddings_and_norms_to_adamw(recipe: Recipe) -> None:
    model = run.load_model(recipe)
    optimizer = MuonAdamW(model, 0.02, 0.003, 0.01)
    names = {id(weight): name for name, weight in model.named_parameters()}
    matrices, others = ({names[id(w)] for w in part.param_groups[0]["params"]} for part in optimizer.parts)
    assert matrices | others == set(names.values())
    assert all(name.endswith("_proj.weight") for name in matrices)
    assert "model.embed_tokens.weight" in others
    assert all("norm" in name or "embed" in name for name in others)
