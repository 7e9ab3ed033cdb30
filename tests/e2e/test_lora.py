"""Branches are decoded with the adapter that their request named, beside requests that named none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="SGLang's LoRA needs pinned memory and an accelerator's stream: it runs on no CPU")

import torch
from openai import OpenAI
from safetensors.torch import save_file
from servers import Servers

from multiverse import Limits
from multiverse.models import TINY
from multiverse.models.task import Problem
from multiverse.models.tokenizer import turn
from multiverse.oracle import Generation, generate, load

RANK, SIZE = 4, 0.02
TARGETS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj")
TOLERANCE = 1e-4
NGRAM = '{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 1, "prompt_lookup_max": 4}'


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return load(str(TINY))


@pytest.fixture(scope="module")
def adapter(tiny: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A random adapter as PEFT writes one, and a model whose weights it was added to."""
    path, merged = tmp_path_factory.mktemp("adapter"), deepcopy(tiny[0])
    generator, tensors = torch.Generator().manual_seed(0), {}
    for name, module in merged.named_modules():
        if name.endswith(TARGETS):
            inner = torch.randn(RANK, module.in_features, generator=generator)
            outer = torch.randn(module.out_features, RANK, generator=generator) * SIZE
            tensors |= {
                f"base_model.model.{name}.lora_A.weight": inner,
                f"base_model.model.{name}.lora_B.weight": outer,
            }
            module.weight.data += outer @ inner
    save_file(tensors, path / "adapter_model.safetensors")
    modules = sorted({target.split(".")[1] for target in TARGETS})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK, "target_modules": modules}
    (path / "adapter_config.json").write_text(json.dumps({**config, "bias": "none", "base_model_name_or_path": "tiny"}))
    return path, merged


@pytest.fixture(scope="module", params=[(), ("--speculative-config", NGRAM)], ids=["plain", "with drafts"])
def client(request: pytest.FixtureRequest, servers: Servers, adapter: tuple[Path, Any]) -> Iterator[OpenAI]:
    """Of a server that has the adapter, too."""
    # without a free slot, vLLM on CPUs computes requests that name no adapter with the one in its last slot
    own = ["--lora-modules", f"shifted={adapter[0]}", "--max-lora-rank", "8", "--max-loras", "2"]
    url = servers("--enable-lora", *own, *request.param)
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


def asked(client: OpenAI, model: str, prompt: str) -> Any:
    return client.completions.create(model=model, prompt=prompt, max_tokens=800, temperature=0, logprobs=1)


def difference(answer: Any, expected: Generation) -> float:
    """The largest one between reported log-probabilities and the reference's, over what was sampled: what the engine
    wrote itself is reported with 0."""
    reported = answer.choices[0].logprobs.token_logprobs
    known = (expected.transcript.logprobs or [])[-len(expected.ids) :]
    pairs = [(one, other) for one, other in zip(reported, known, strict=False) if one < 0 and other is not None]
    assert len(pairs) > len(known) // 2
    return max(abs(one - other) for one, other in pairs)


def test_branches_have_the_adapter_of_their_request(
    client: OpenAI, tiny: tuple[Any, Any], adapter: tuple[Path, Any], problems: list[Problem]
) -> None:
    prompts = [turn(problem) for problem in problems]
    limits = Limits(max_tokens=800)
    models = {"tiny": tiny[0], "shifted": adapter[1]}
    expected = {name: generate(model, tiny[1], prompts, limits=limits) for name, model in models.items()}
    with ThreadPoolExecutor(2 * len(prompts)) as pool:  # both kinds in the same batches
        answers = {name: [pool.submit(asked, client, name, prompt) for prompt in prompts] for name in models}
        found = {name: [answer.result() for answer in all_of] for name, all_of in answers.items()}
    for name in models:
        assert [answer.choices[0].text for answer in found[name]] == [
            each.text.removesuffix(tiny[1].eos_token) for each in expected[name]
        ]
        assert max(map(difference, found[name], expected[name])) < TOLERANCE
        branches = [getattr(answer.usage, "multiverse", {}).get("branches", 0) for answer in found[name]]
        assert sum(number > 1 for number in branches) > len(prompts) // 3
    mixed_up = map(difference, found["tiny"], expected["shifted"])
    assert max(mixed_up) > 100 * TOLERANCE  # the comparison sees which weights were used
