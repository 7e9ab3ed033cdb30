"""What a recipe of method: grpo can't mean, and what is missing for it, is told before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small import write_rows
from small_grpo import ROWS, changed, make_recipe

from multiverse.cli import main
from multiverse.errors import TrainingError
from multiverse.training.grpo import run as grpo
from multiverse.training.grpo.settings import Term
from multiverse.training.recipe import Recipe, load_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return make_recipe(tmp_path)


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
