"""Rollouts of an engine without a server: its own outputs, read and rated again, also when memory was short."""

from __future__ import annotations

from typing import Any

import pytest
from answer import Host
from test_answers import encode

from multiverse import Binding
from multiverse.models.task import Problem
from multiverse.training.rollouts import Reader
from multiverse.training.rollouts.batch import mismatch

ASKED = {"logprobs": 1, "temperature": 1.0, "multiverse": {"return_tree": True}}


def test_rollouts_of_trees_that_were_preempted_are_complete_and_rated_alike(
    scarce_host: Host, tiny: tuple[Any, Any], binding: Binding, problems: list[Problem]
) -> None:
    prompts = [encode(tiny[1], problem) for problem in problems if problem.forks]
    before = scarce_host.counters()["replays"]
    answers = scarce_host.generate(prompts, seed=1, **ASKED)
    assert scarce_host.counters()["replays"] > before
    reader = Reader(binding)
    found = [
        reader.record(answer.record, prompt, str(at), str(at))
        for at, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]
    for rollout, prompt, answer in zip(found, prompts, answers, strict=True):
        assert rollout.ids == [*prompt, *answer.ids]
        assert None not in rollout.document("versions")
    assert sum(len(rollout.strands) > 1 for rollout in found) > len(found) // 2
    assert mismatch(tiny[0], found) < 1e-4


def test_outputs_of_vllms_own_generate_are_read(host: Any, tiny: tuple[Any, Any], binding: Binding) -> None:
    vllm = pytest.importorskip("vllm", reason="SGLang's are read in tests/e2e")
    prompt = tiny[1].encode("<|im_start|>user\nA = sum 3 5 2 7 1; B = max 4 1 9 2 6. Find sum A B.<|im_end|>\n")
    parameters = vllm.SamplingParams(
        temperature=1.0, max_tokens=60, logprobs=1, n=2, extra_args={"multiverse": {"return_tree": True}}
    )
    (output,) = host.llm.generate([{"prompt_token_ids": prompt}], parameters, use_tqdm=False)
    found = Reader(binding).vllm(output)
    assert [rollout.group for rollout in found] == [output.request_id] * 2
    assert [rollout.ids for rollout in found] == [[*prompt, *choice.token_ids] for choice in output.outputs]
    assert mismatch(tiny[0], found) < 1e-4
