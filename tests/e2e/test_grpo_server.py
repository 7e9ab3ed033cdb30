"""`multiverse train` with method: grpo on a real host: the engine answers with the weights of each step, be it a server
that runs, one that the run starts, or an engine in the trainer's process."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from own_engine import OPTIONS
from safetensors.torch import load_file
from servers import FEW_BLOCKS, Servers
from test_examples import OFFLINE
from test_rollout_server import ARGUMENTS

from multiverse import bind
from multiverse.harness.server import command, free_port
from multiverse.models import TINY
from multiverse.models.task import generate
from multiverse.models.untie import untie
from multiverse.oracle import load
from multiverse.training.grpo.engines import Sampling, ServedAnswers
from multiverse.training.grpo.served import Served
from multiverse.training.rollouts import Reader
from multiverse.training.rollouts.batch import mismatch

STEPS = 3
IN_PROCESS = {name: value for name, value in OFFLINE.items() if name != "VLLM_ENABLE_V1_MULTIPROCESSING"}
"""For an engine in the trainer's process, of which vLLM makes one more; `own_engine.py` is without it."""
REWARD = """
def various(answers):
    return [len(set(answer.rollout.ids)) for answer in answers]
"""
"""As a user would write it: the more different tokens, the better."""
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The embedded model with an output matrix of its own, and less sure: its answers differ, and many still fork."""
    path = tmp_path_factory.mktemp("base") / "tiny"
    untie(str(TINY), path)
    model, _ = load(str(path))
    with torch.no_grad():
        model.lm_head.weight *= 0.4
    model.save_pretrained(path)
    return str(path)


@pytest.fixture
def problems_file(tmp_path: Path) -> str:
    """Four problems of which three are worth a block."""
    rng, path = Random(5), tmp_path / "problems.jsonl"
    kinds = ("flat", "nested", "single", "flat")
    rows = [{"question": one.prompt, "answer": one.answer} for one in (generate(rng, kind) for kind in kinds)]
    path.write_text("".join(json.dumps({"id": f"p{number}", **row}) + "\n" for number, row in enumerate(rows)))
    return str(path)


def trained(directory: Path, base: str, problems_file: str, engine: dict[str, Any], **settings: Any) -> Path:
    """Where `multiverse train` leaves a run of a few steps; the reward differs within a group."""
    output, path = directory / "out", directory / "recipe.yaml"
    (directory / "own_rewards.py").write_text(REWARD)
    grpo = {"engine": engine, "rewards": [{"name": "own_rewards:various"}], "grader": "exact"}
    grpo |= {"steps": STEPS, "prompts": 2, "answers": 4, "temperature": 1.0, "max_tokens": 200}
    recipe: dict[str, Any] = {"model": base, "data": [{"path": problems_file}], "output": str(output), "method": "grpo"}
    recipe |= {"learning_rate": 1e-3, "warmup": 0.0, "schedule": "constant", "threads": 1, "log_every": 1}
    path.write_text(json.dumps(recipe | {"grpo": grpo | settings}))
    program = [sys.executable, "-m", "multiverse", "train", str(path)]
    environment = os.environ | IN_PROCESS | {"PYTHONPATH": f"{directory}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return output


def history(output: Path, key: str) -> list[float]:
    """A column of the log, of the steps that have it."""
    log = json.loads((output / "train_log.json").read_text())["history"]
    return [entry[key] for entry in log if key in entry]


def check_steps(output: Path, base: str) -> None:
    """Each step's answers are rated by the trainer as by the engine, and weights did change in between.

    That the trees name the version that the engine was given is asserted by the run itself.
    """
    differences = history(output, "logprob_difference")
    assert len(differences) == STEPS
    assert max(differences) < TOLERANCE
    assert sum(history(output, "learnt_groups")) > 0
    assert min(history(output, "serial_collapse")) < 1, "some answers fork"
    before, after = load_file(Path(base, "model.safetensors")), load_file(output / "model.safetensors")
    assert max(float((after[name] - tensor).abs().max()) for name, tensor in before.items()) > 1e-3


@pytest.fixture
def served(servers: Servers, host: str, base: str) -> Served:
    """A server that is running already."""
    return Served(servers(*ARGUMENTS[host], model=base), host)  # type: ignore[arg-type]


def test_a_server_that_runs_has_the_trained_weights_in_the_end(
    served: Served, host: str, base: str, problems_file: str, tmp_path: Path
) -> None:
    """Held-out problems are answered by the last weights, so that is what the server goes on with."""
    engine, held_out = {"host": host, "url": served.url}, {"path": problems_file, "every": STEPS}
    output = trained(tmp_path, base, problems_file, engine, held_out=held_out)
    check_steps(output, base)
    assert len(history(output, "held_out_right")) == 2
    model, tokenizer = load(str(output))
    asked = tokenizer.encode("<|im_start|>user\nA = sum 3 5 2 7 1; B = max 4 1 9 2 6. Find sum A B.<|im_end|>\n")
    answers = ServedAnswers(served, Reader(bind("multiverse", tokenizer), 0.9))
    (found,) = answers.answer([asked], Sampling(6, 0.9, 120, 7))
    assert {version for one in found for version in one.document("versions")} == {str(STEPS)}
    assert mismatch(model, found) < TOLERANCE
    assert mismatch(load(base)[0], found) > 100 * TOLERANCE, "these are not the weights that it began with"


@pytest.mark.long
def test_a_server_that_the_run_starts_ends_with_it(
    host: str, base: str, problems_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    port = free_port()
    few = FEW_BLOCKS if host == "vllm" else ()
    started = command(host, base, port, ["--served-model-name", "tiny", *few, *ARGUMENTS[host]])
    engine = {"host": host, "url": f"http://127.0.0.1:{port}", "serve": shlex.join(started.arguments)}
    output = trained(tmp_path, base, problems_file, engine | {"environment": dict(started.environment)})
    check_steps(output, base)


@pytest.mark.long
def test_an_engine_in_the_trainers_process_is_trained_with(
    host: str, base: str, problems_file: str, tmp_path: Path
) -> None:
    engine = {"host": host, "options": {"dtype": "float32", **OPTIONS[host]}}
    check_steps(trained(tmp_path, base, problems_file, engine), base)
