"""Every rank does the same: the plan is plain data on vLLM's own message, and says nothing of heads or devices."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from caches import BLOCK, BLOCKS, layers_of, make_runner
from vllm.v1.core.sched.output import SchedulerOutput

from multiverse import Limits
from multiverse.models import TINY
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse.oracle import generate as reference
from multiverse.oracle import load
from multiverse_vllm.channels import PLAN as FIELD
from multiverse_vllm.plan import StepPlan
from multiverse_vllm.worker.kv_layout import KVMover

PLAN = StepPlan(moves=[(0, 3, 2, 1), (2, 1, 5, 0)], deltas={"request/0.1": -17})


def sent(plan: StepPlan) -> StepPlan:
    """What arrives at a worker process."""
    output = SchedulerOutput.make_empty()
    setattr(output, FIELD, plan)
    received = pickle.loads(pickle.dumps(output))
    return getattr(received, FIELD)  # type: ignore[no-any-return]


def test_a_plan_arrives_with_the_schedulers_output_as_it_was_sent() -> None:
    assert sent(PLAN) == PLAN


def test_a_plan_is_plain_data() -> None:
    def leaves(value: Any) -> set[type]:
        if isinstance(value, dict):
            return set().union(*map(leaves, [*value, *value.values()]))
        return set().union(*map(leaves, value)) if isinstance(value, list | tuple) else {type(value)}

    assert leaves(list(vars(PLAN).values())) == {int, str}


@pytest.mark.parametrize("layout", ["LBNHC", "LBHNC", "BLHNC"])
def test_two_ranks_move_their_heads_as_one_rank_moves_all(layout: str) -> None:
    whole, *shards = (make_runner("FLASH_ATTN", layout, heads=heads) for heads in (4, 2, 2))
    for layers in zip(*map(layers_of, (whole, *shards)), strict=True):
        layers[0].kv_cache.copy_(torch.randn(layers[0].kv_cache.shape))
        for rank, layer in enumerate(layers[1:]):
            layer.kv_cache.copy_(layers[0].kv_cache[:, 2 * rank : 2 * rank + 2])
    rng = Random(0)
    slots = [rng.sample(range(BLOCKS * BLOCK), 100) for _ in range(2)]
    plan = StepPlan(moves=[(*divmod(s, BLOCK), *divmod(t, BLOCK)) for s, t in zip(*slots, strict=True)])
    for runner in (whole, *shards):
        KVMover(runner).move(sent(plan).moves)
    for full, *parts in zip(*map(layers_of, (whole, *shards)), strict=True):
        assert torch.equal(full.kv_cache, torch.cat([part.kv_cache for part in parts], dim=1))


SHARED = {
    "method": "custom_class",
    "model": "multiverse_vllm.worker.drafter.SharedNGrams",
    "num_speculative_tokens": 4,
}


@pytest.mark.parametrize("drafts", [None, SHARED], ids=["plain", "with drafts"])
def test_two_worker_processes_answer_as_the_oracle(tmp_path: Path, drafts: dict[str, Any] | None) -> None:
    """Tensor parallelism for real: each process holds half of the heads, and its half of the moves."""
    model, tokenizer = load(str(TINY))
    rng = Random(11)
    problems = [generate(rng, kind, held_out=True) for kind in ("flat", "nested")]
    prompts = [list(tokenizer.encode(turn(problem))) for problem in problems]
    ours = ("TRITON_INTERPRET", "VLLM_USE_V2_MODEL_RUNNER")  # the workers are other processes, without our interpreter
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    found = tmp_path / "answers.json"
    command = [sys.executable, str(Path(__file__).with_name("two_ranks.py")), str(found)]
    command += [json.dumps(drafts)] if drafts else []
    ran = subprocess.run(
        command, input=json.dumps(prompts), env=environment, text=True, capture_output=True, timeout=900, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    result = json.loads(found.read_text())
    expected = reference(model, tokenizer, prompts, limits=Limits(max_tokens=800))
    assert result["answers"] == [answer.ids for answer in expected]
    assert result["moved"] > 0
    assert (result["drafted"] > 0) == (drafts is not None)
