"""A run from files to a served checkpoint, on a random model of three layers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small import TOKENIZER, answer, save_model, write_rows
from transformers import TrainerCallback

from multiverse.cli import main
from multiverse.errors import TrainingError
from multiverse.oracle import generate, load
from multiverse.training import run
from multiverse.training.data import load_corpus, rows
from multiverse.training.recipe import Lora, Phase, Recipe, Source, load_recipe

ROWS = [{"id": f"r{i}", "question": f"q{i}", "parallel": answer(f"a{i}", "b"), "sequential": f"s{i}"} for i in range(6)]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe(
        model=save_model(tmp_path / "base"),
        data=[Source(write_rows(tmp_path / "d.jsonl", ROWS))],
        output=str(tmp_path / "out"),
        phases=[Phase(epochs=4)],
        max_length=256,
        learning_rate=1e-2,
        save_every=3,
        log_every=1,
        threads=1,
    )


def data(recipe: Recipe) -> list[Any]:
    encoder = run.load_encoder(recipe, run.load_tokenizer(recipe))
    return rows(recipe, load_corpus(recipe, encoder), encoder)


def finish(recipe: Recipe, **options: Any) -> dict[str, torch.Tensor]:
    """Train, save, and read the weights back."""
    tokenizer = run.load_tokenizer(recipe)
    trainer = run.train(recipe, options.get("model") or run.load_model(recipe), tokenizer, data(recipe))
    run.save(recipe, trainer, tokenizer)
    return load_file(Path(recipe.output) / "model.safetensors")


def write_recipe(recipe: Recipe, path: Path, source: str, batch_rows: int = 1) -> str:
    fields: dict[str, Any] = {
        "model": recipe.model,
        "output": recipe.output,
        "data": [{"path": source}],
        "learning_rate": 0.01,
    }
    fields |= {"phases": [{"epochs": 6}], "max_length": 256, "log_every": 1, "batch_rows": batch_rows}
    path.write_text(json.dumps(fields))
    return str(path)  # JSON is YAML


def test_the_command_trains_a_model_and_leaves_log_plot_and_card(recipe: Recipe, tmp_path: Path) -> None:
    config = write_recipe(recipe, tmp_path / "r.yaml", recipe.data[0].path)
    assert main(["train", config]) == 0
    out = Path(recipe.output)
    log = json.loads((out / "train_log.json").read_text())
    losses = [loss for _, loss in log["loss"]]
    assert losses[-1] < losses[0] / 2
    assert log["data"]["with blocks"] == len(ROWS)
    assert load_recipe(out / "recipe.yaml") == load_recipe(config)
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    card = (out / "README.md").read_text()
    assert "dialect: multiverse" in card
    assert "separators: overlap" in card
    assert "to write blocks of the `multiverse` dialect" in card
    assert f"{len(losses)} steps" in card
    model, tokenizer = load(recipe.output)
    assert generate(model, tokenizer, ["a"])[0].ids, "the oracle takes it as it is"


def test_broken_rows_stop_the_command_before_it_trains(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [ROWS[0] | {"parallel": "<Path>"}, {"question": "x" * 900}, {"question": "x", "sequential": "y " * 900}]
    broken = write_rows(tmp_path / "b.jsonl", [*ROWS[:2], *wrong])
    config = write_recipe(recipe, tmp_path / "r.yaml", broken)
    assert main(["train", config]) == 1
    message = capsys.readouterr().err
    assert f"{broken}:3 (r0): column 'parallel': <Path> is not expected" in message
    assert f"{broken}:4: neither 'parallel' nor 'sequential'" in message
    assert f"{broken}:5 ({broken}:5): column 'sequential': has " in message
    assert "--skip-invalid" in message
    assert not list(Path(recipe.output).glob("*.safetensors"))
    assert main(["train", config, "--skip-invalid"]) == 0
    message = capsys.readouterr().err
    assert "3 broken rows left out" in message
    assert list(Path(recipe.output).glob("*.safetensors"))


def test_two_processes_learn_what_one_learns_with_twice_the_rows(recipe: Recipe, tmp_path: Path) -> None:
    """Under torchrun, on this CPU: plain data parallelism. FSDP needs GPUs, accelerate leaves it out here."""
    alone, shared = (replace(recipe, output=str(tmp_path / name)) for name in ("alone", "shared"))
    assert main(["train", write_recipe(alone, tmp_path / "alone.yaml", recipe.data[0].path, batch_rows=2)]) == 0
    config = write_recipe(shared, tmp_path / "shared.yaml", recipe.data[0].path)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launch, "-m", "multiverse", "train", config]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    weights, expected = (load_file(Path(run.output) / "model.safetensors") for run in (shared, alone))
    assert max(float((weights[name] - value).abs().max()) for name, value in expected.items()) < 1e-5


def test_check_shows_the_figures_and_trains_nothing(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", write_recipe(recipe, tmp_path / "r.yaml", recipe.data[0].path), "--check"]) == 0
    shown = capsys.readouterr().err
    assert "longest" in shown
    assert not Path(recipe.output).exists()


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(TrainerCallback):
        def on_save(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step == 3

    whole = finish(recipe)
    stopped = replace(recipe, output=recipe.output + "-stopped")
    with monkeypatch.context() as patch:
        inherited = run.RowTrainer.__init__

        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            inherited(self, *args, callbacks=[Stop()], **kwargs)

        patch.setattr(run.RowTrainer, "__init__", init)
        trainer = run.train(stopped, run.load_model(stopped), run.load_tokenizer(stopped), data(stopped))
        assert trainer.state.global_step == 3
    resumed = finish(stopped)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_same_recipe_gives_the_same_rows_and_another_seed_others(recipe: Recipe) -> None:
    assert data(recipe) == data(recipe)
    assert data(recipe) != data(replace(recipe, seed=1))


def test_the_curriculum_goes_from_sequential_to_parallel(recipe: Recipe) -> None:
    phases = [Phase(2, 0.0), Phase(20, 0.5), Phase(1, 1.0)]
    found = [row.layout.position_delta < 0 for row in data(replace(recipe, phases=phases, pack=False))]
    first, middle, last = found[:12], found[12:-6], found[-6:]
    assert not any(first)
    assert all(last)
    assert 0.3 < sum(middle) / len(middle) < 0.7


def test_rows_are_learnt_in_the_order_of_the_curriculum(recipe: Recipe) -> None:
    expected = [row.ids for row in data(replace(recipe, pack=False))]
    rows = data(replace(recipe, pack=False))
    trainer = run.make_trainer(recipe, run.load_model(recipe), run.load_tokenizer(recipe), rows)
    assert [batch["input_ids"][0].tolist() for batch in trainer.get_train_dataloader()] == expected


def test_frozen_layers_and_what_feeds_them_stay_as_they_were(recipe: Recipe) -> None:
    """The embedding is tied to the output and so learns as such; as an input only the tags' rows get a gradient."""
    before = {name: value.clone() for name, value in run.load_model(recipe).state_dict().items()}
    frozen = replace(recipe, freeze_layers=2)
    model = run.load_model(frozen)
    embedding, path = model.get_input_embeddings(), TOKENIZER.convert_tokens_to_ids("<Path>")
    embedding(torch.tensor([[1, path]])).sum().backward()
    assert embedding.weight.grad.any(1).nonzero().flatten().tolist() == [path]
    model.zero_grad()
    after = finish(frozen, model=model)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert not any(name.startswith(("model.layers.0.", "model.layers.1.")) for name in changed)
    assert any(name.startswith("model.layers.2.") for name in changed)
    with pytest.raises(TrainingError, match="freeze_layers: is 3, but the model has 3 layers"):
        run.load_model(replace(recipe, freeze_layers=3))


def test_adapters_are_merged_and_the_rows_of_tags_are_learnt_with_them(recipe: Recipe) -> None:
    before = {name: value.clone() for name, value in run.load_model(recipe).state_dict().items()}
    after = finish(replace(recipe, lora=Lora(rank=4, alpha=8)))
    assert after.keys() <= before.keys()
    assert not torch.equal(after["model.layers.0.mlp.up_proj.weight"], before["model.layers.0.mlp.up_proj.weight"])
    rows = after["model.embed_tokens.weight"], before["model.embed_tokens.weight"]
    changed = (rows[0] != rows[1]).any(1).nonzero().flatten().tolist()
    assert {TOKENIZER.decode([token]) for token in changed} <= set(TOKENIZER.get_added_vocab())
    assert TOKENIZER.convert_tokens_to_ids("</Path>") in changed


def test_a_model_without_a_chat_template_is_refused(recipe: Recipe) -> None:
    path = Path(recipe.model) / "chat_template.jinja"
    path.unlink()
    with pytest.raises(TrainingError, match="has no chat template"):
        run.load_tokenizer(recipe)


def test_in_bfloat16_weights_stay_float32_and_learn_nearly_the_same(recipe: Recipe) -> None:
    plain = finish(recipe)
    autocast = finish(replace(recipe, output=recipe.output + "-bf16", dtype="bfloat16", attention="eager"))
    assert {value.dtype for value in autocast.values()} == {torch.float32}
    worst = max(float((plain[name] - autocast[name]).abs().max()) for name in plain)
    assert 1e-6 < worst < 0.1


def test_gradient_checkpointing_changes_nothing_but_memory(recipe: Recipe) -> None:
    plain = finish(recipe)
    saved = finish(replace(recipe, output=recipe.output + "-saved", gradient_checkpointing=True))
    assert max(float((plain[name] - saved[name]).abs().max()) for name in plain) < 1e-5
