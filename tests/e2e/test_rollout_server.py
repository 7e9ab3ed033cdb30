"""Rollouts over HTTP: what a server reports of every sampled token is what a training forward says of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from servers import Servers
from test_examples import OFFLINE

from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse.oracle import load
from multiverse.training.grpo.engines import Sampling, ServedAnswers
from multiverse.training.grpo.served import Served
from multiverse.training.rollouts import Reader, Rollout
from multiverse.training.rollouts.batch import mismatch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from rollouts import ARGUMENTS, Trainer, checkpoints

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The embedded model and one with random weights, by the paths of their checkpoints."""
    return checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def tiny(models: dict[str, Any]) -> str:
    return next(iter(models))


@pytest.fixture(scope="module")
def trainer(servers: Servers, host: str, tiny: str) -> Trainer:
    url = servers("--multiverse-shapes", "accept", *ARGUMENTS[host], model=tiny)
    return Trainer(Served(url, host), load(tiny)[1])


@pytest.fixture
def prompt(trainer: Trainer) -> list[int]:
    return list(trainer.tokenizer.encode(turn(generate(Random(3), "flat", 4, held_out=True))))


def versions(rollout: Rollout) -> set[str | None]:
    return set(rollout.document("versions"))


def test_a_training_forward_says_the_same_flat_and_nested_replayed_and_under_new_weights(
    trainer: Trainer, models: dict[str, Any]
) -> None:
    """Each version of the weights is compared with the tokens that it sampled, also where an answer has two of them."""
    tiny, other = models
    trainer.load(tiny)
    found = trainer.round(0, [other, tiny, other])
    found += trainer.round(1, [None, None])
    found += trainer.round(2, [tiny])
    assert set().union(*map(versions, found)) == set(models)
    assert sum(len(versions(one)) == 2 for one in found) > 3
    assert sum(len(one.strands) == 1 for one in found) > 2
    assert sum(any(len(strand.key) > 2 for strand in one.strands) for one in found) > 3
    worst = {path: mismatch(model, found, path) for path, model in models.items()}
    assert max(worst.values()) < TOLERANCE
    assert mismatch(models[other], found, tiny) > 0.1


def test_chats_and_generate_are_read_alike(
    trainer: Trainer, models: dict[str, Any], tiny: str, prompt: list[int], host: str
) -> None:
    trainer.load(tiny)
    question = generate(Random(3), "flat", 4, held_out=True).prompt
    body = {"model": "tiny", "messages": [{"role": "user", "content": question}], "temperature": 1.0, "logprobs": True}
    body |= {"max_tokens": 400, "multiverse": {"return_tree": True}, "return_token_ids": True}
    reader = Reader(trainer.binding)
    (chat,) = reader.response(trainer.server.call("/v1/chat/completions", body))
    found = [chat]
    if host == "sglang":
        parameters = {"temperature": 1.0, "max_new_tokens": 400}
        asked = {"input_ids": prompt, "sampling_params": parameters, "return_logprob": True}
        answer = trainer.server.call("/generate", asked | {"multiverse": {"return_tree": True}})
        found.append(reader.sglang(answer, prompt, "g"))
    assert all(one.prompt_ids == prompt and len(one.strands) == 5 for one in found)
    assert mismatch(models[tiny], found) < TOLERANCE


def test_a_trainer_gets_groups_of_the_weights_that_it_gave(
    trainer: Trainer, models: dict[str, Any], prompt: list[int], host: str
) -> None:
    engine = ServedAnswers(trainer.server, Reader(trainer.binding, 0.9))
    for number, (path, model) in enumerate(models.items()):
        engine.load(path, f"step {number}")
        groups = engine.answer([prompt, prompt[:-1]], Sampling(3, 0.9, 60, 7))
        assert [[one.prompt_ids for one in group] for group in groups] == [[prompt] * 3, [prompt[:-1]] * 3]
        found = [one for group in groups for one in group]
        assert set().union(*map(versions, found)) == {f"step {number}"}
        assert mismatch(model, found) < TOLERANCE
        again = engine.answer([prompt], Sampling(3, 0.9, 60, 7))
        assert host == "sglang" or [one.ids for one in again[0]] == [one.ids for one in groups[0]], "seeds repeat"


def test_an_engine_in_the_trainers_process_takes_weights_too(host: str, models: dict[str, Any]) -> None:
    command = [sys.executable, str(Path(__file__).parent / "own_engine.py"), host, *models]
    done = subprocess.run(command, env=os.environ | OFFLINE, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = json.loads(done.stdout.splitlines()[-1])
    assert [first["versions"], second["versions"]] == [["step 0"], ["step 1"]]
    assert first["prompts"] == second["prompts"] == [[True] * 3] * 2
    assert first["branches"] >= 3
    assert max(first["difference"], second["difference"]) < TOLERANCE
