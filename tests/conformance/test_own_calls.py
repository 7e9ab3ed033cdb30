"""Who doesn't fork doesn't pay: what the package does in a step does not grow with requests that have no block."""

from __future__ import annotations

from importlib.util import find_spec
from random import Random
from typing import Any

import pytest
from answer import Host

from multiverse import Binding
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn

LOOKS = 6
"""Steps that are counted. The least of them counts: every few steps the suite has books compared."""
MOST, LOOKED_AT, PER_BRANCH = (21, 2, 6) if find_spec("vllm") is not None else (48, 4, 14)
"""Calls in a step of a host that nobody forks on; for a row without a block while others have one; and for a branch
while nothing is to be decided, with its part of what is done for its tree (the suite has SGLang look for leaks in each
step, which is half of it there)."""


@pytest.fixture(scope="module")
def prompts(tiny: tuple[Any, Any]) -> dict[str, list[int]]:
    """One whose answer forks, and one whose answer does not."""
    rng = Random(31)
    return {kind: tiny[1].encode(turn(generate(rng, kind, held_out=True))) for kind in ("single", "flat")}


def least(host: Host, settle: int) -> dict[str, int]:
    """Calls in a step, once all that was started has decoded for so many."""
    for _ in range(settle):
        host.step()
    return min((host.own_calls() for _ in range(LOOKS)), key=lambda calls: sum(calls.values()))


@pytest.fixture(scope="module")
def endless(binding: Binding) -> dict[str, Any]:
    """Of requests that could fork, and say no tag."""
    return {"logit_bias": dict.fromkeys(binding.tags, -100.0), "ignore_eos": True, "max_tokens": 400}


def calls_beside(
    host: Host, rows: int, prompts: dict[str, list[int]], endless: dict[str, Any], forking: int = 0
) -> dict[str, int]:
    """Calls in a step of so many plain requests and so many that have forked."""
    started = [host.start(prompts["single"], **endless) for _ in range(rows)]
    started += [host.start(prompts["flat"]) for _ in range(forking)]
    found = least(host, settle=60 if forking else 8)
    for request in started:
        host.abort(request)
    return found


def test_a_plain_token_calls_nothing_of_ours(
    host: Host, prompts: dict[str, list[int]], endless: dict[str, Any]
) -> None:
    few, many = (calls_beside(host, rows, prompts, endless) for rows in (2, 24))
    assert many == few
    assert sum(few.values()) <= MOST, few


def test_beside_one_that_forks_it_is_looked_at_and_that_is_all(
    host: Host, prompts: dict[str, list[int]], endless: dict[str, Any]
) -> None:
    few, many = (calls_beside(host, rows, prompts, endless, forking=1) for rows in (1, 24))
    assert sum(few.values()) > MOST
    grown = {name: count - few.get(name, 0) for name, count in many.items() if count != few.get(name, 0)}
    assert sum(grown.values()) <= 23 * LOOKED_AT, grown


def test_a_branch_is_written_down_and_that_is_all(host: Host, tiny: tuple[Any, Any], endless: dict[str, Any]) -> None:
    """Most steps are quiet: nobody decides, and what a tree costs does not grow with its branches but for that."""
    goal = tiny[1].encode("<Parallel>\n<Goal>\n" + "<Outline>\n1: x\n</Outline>\n" * 6 + "</Goal>")
    started = [host.start(goal, **endless) for _ in range(4)]
    found = least(host, settle=20)
    for request in started:
        host.abort(request)
    rows = found["controller.Controller.extend"]
    assert rows == 4 * 6
    assert "verdict.Judge.decide" not in found
    assert sum(found.values()) - MOST <= PER_BRANCH * rows, found
