"""A fork on vLLM takes no step of its own: branches compute what their parent drains, wherever in a block that lies."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

pytest.importorskip("vllm", reason="it is vLLM's branches that compute their parent's last tokens")

from vllm_host import VLLMHost

from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse_vllm.scheduler import forks

BLOCK = 32


@pytest.fixture(scope="module")
def prompt(tiny: tuple[Any, Any]) -> list[int]:
    """One whose answer has a block of several branches."""
    return list(tiny[1].encode(turn(generate(Random(31), "flat", held_out=True))))


def first_steps(host: VLLMHost, prompt: list[int]) -> tuple[int, int]:
    """The steps after which the root has forked, and after which each branch has sampled a token."""
    host.start(prompt)
    forked = 0
    for step in range(1, 2000):
        host.step()
        for tree in host.scheduler.trees.structured.values():
            root = tree.controller.root
            forked = forked or step
            branches = root.forks[0][1]
            if all(len(branch.tokens) > len(branch.header) for branch in branches):
                return forked, step
    raise AssertionError("no branch sampled anything")


def test_each_branch_samples_its_first_token_in_the_step_after_the_fork(
    host: VLLMHost, prompt: list[int], late: bool
) -> None:
    forked, sampled = first_steps(host, prompt)
    assert sampled - forked == 1 + late
    for _ in range(2000):
        host.step()
        if not any(host.leftovers().values()):
            break
    assert not any(host.leftovers().values())


def test_answers_are_the_same_wherever_in_a_block_the_fork_is(
    host: VLLMHost, prompt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside branches that start when all KV of their parent is there."""
    prompts = [prompt[:1] * extra + prompt for extra in range(BLOCK)]
    found = host.generate(prompts, logprobs=0)
    assert host.counters()["forks"] >= BLOCK
    monkeypatch.setattr(forks, "MOST_LACKING", -1)
    expected = host.generate(prompts, logprobs=0)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.ids == theirs.ids
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
