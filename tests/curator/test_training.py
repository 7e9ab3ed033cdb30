"""`multiverse train` takes what the Curator writes as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml
from curating import ROOT, Configure, Serve, lines

from multiverse import registry
from multiverse.curator import curate, load_config
from multiverse.models import TINY
from multiverse.training.schema import Example, read


def test_every_accepted_example_is_a_valid_training_example(teach: Serve, configure: Configure) -> None:
    _, url = teach(faults=0.3, hang=0.1)
    config = load_config(configure(url, 40))
    curate(config)
    training = config.output / "train.jsonl"
    found = [example for _, example in read(training, registry.get("multiverse"))]
    assert len(found) == len(lines(training)) >= 38
    assert all(isinstance(example, Example) for example in found)


def test_a_model_is_trained_on_it(teach: Serve, configure: Configure, tmp_path: Path) -> None:
    _, url = teach()
    config = load_config(configure(url, 3))
    curate(config)
    recipe = {
        "model": str(TINY),
        "data": [{"path": str(config.output / "train.jsonl")}],
        "output": str(tmp_path / "model"),
        "threads": 1,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    train = [sys.executable, "-m", "multiverse", "train", str(tmp_path / "recipe.yaml")]
    done = subprocess.run(train, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "model").glob("**/*.safetensors"))
