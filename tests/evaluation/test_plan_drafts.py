"""Drafts on paper: against arithmetic on both sides of the knee of the roofline."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from program import run

from multiverse.evaluation.plan.drafts import rates, tokens_per_step
from multiverse.evaluation.plan.machine import Machine, Model, Roofline, load


def roofline(**changes: float) -> Roofline:
    machine = load(Machine, "machines", "h200").model_copy(update=changes)
    return Roofline(machine, load(Model, "models", "qwen2.5-32b"))


@pytest.mark.parametrize("length", [0, 1, 4, 16])
@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.9, 1.0])
def test_a_step_brings_what_is_accepted_and_one_more(length: int, acceptance: float) -> None:
    series = length + 1 if acceptance == 1 else (1 - acceptance ** (length + 1)) / (1 - acceptance)
    assert tokens_per_step(length, acceptance) == pytest.approx(series)
    chances = np.random.default_rng(0).random((200_000, length)) < acceptance
    assert 1 + chances.cumprod(axis=1).sum(axis=1).mean() == pytest.approx(series, abs=0.02)


def gains(line: Roofline, rows: int, length: int, acceptance: float, context: float = 0) -> float:
    found = rates(line, [rows], [0, length], acceptance, context)[rows]
    return found[length] / found[0]


def test_drafts_are_free_where_a_step_reads_and_cost_a_row_each_where_it_computes() -> None:
    slow_memory, slow_cores = roofline(flops=1e18), roofline(bandwidth=1e16)
    assert gains(slow_memory, 4, 4, 0.7, 2000) == pytest.approx(tokens_per_step(4, 0.7))
    assert gains(slow_cores, 4, 4, 0.7, 2000) == pytest.approx(tokens_per_step(4, 0.7) / 5)
    overhead = roofline(bandwidth=1e16, flops=1e22, per_sequence=1e-3)
    assert gains(overhead, 4, 4, 0.7) == pytest.approx(tokens_per_step(4, 0.7) / 5, rel=1e-2), "of each token"


def test_the_kv_of_a_row_is_read_once_for_all_it_computes() -> None:
    line = roofline(flops=1e18)
    found = rates(line, [8], [0, 3], 1.0, 10_000)[8]
    step = float(line.step(np.array(8.0), np.array(80_000.0)))
    assert found == pytest.approx({0: 8 / step, 3: 32 / step})


def test_as_many_rows_fit_into_a_step_with_drafts_as_without() -> None:
    line = roofline(flops=1e18, max_sequences=8)
    assert gains(line, 8, 4, 1.0) == pytest.approx(5)
    assert gains(line, 16, 4, 1.0) == pytest.approx(5)


def test_the_command_prints_gains_and_the_table() -> None:
    options = ("--machine", "h200", "--drafts", "2,4", "--batch", "1,64,4096", "--tokens", "1000", "--prompt", "100")
    status, told, _ = plan(*options, "--acceptance", "0.5,1")
    assert (status, told.count("--multiverse-drafts 1:4,64:")) == (0, 2)
    assert "4096" not in told, "it does not fit"
    assert "50% accepted, 600 tokens of context" in told
    assert "| 1.75 | 1.94 |" in told
    status, told, _ = plan(*options, "--acceptance", "0.5", "--json")
    data = json.loads(told)["0.5"]
    assert list(data["tokens_per_second"]) == ["1", "64"]
    assert data["table"].startswith("1:4,")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--acceptance", "1.1"), "--acceptance must be between 0 and 1, is 1.1"),
        (("--drafts", "0"), "--drafts must be positive"),
        (("--batch", "100000"), "no --batch fits"),
    ],
)
def test_a_mistake_is_named(options: tuple[str, ...], message: str) -> None:
    status, _, err = plan("--machine", "h200", "--drafts", "2", *options)
    assert (status, message in err) == (2, True), err


def plan(*arguments: object) -> tuple[int, str, str]:
    done: Any = run(*arguments, command="plan")
    return done.returncode, done.stdout, done.stderr
