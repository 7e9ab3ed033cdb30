"""Attention of ours in vLLM: it computes what vLLM's own Triton backend does, and reads what branches share once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from answer import Answer
from device import ON_CPU
from runner_kinds import runner_of, start
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from vllm.v1.attention import selector
from vllm.v1.attention.backends import triton_attn
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend
from vllm.v1.attention.ops import triton_reshape_and_cache_flash
from vllm_host import VLLMHost

from multiverse import bind, parse_ids
from multiverse.attention.shared_prefix import Pass, kv_tokens
from multiverse.models import TINY
from multiverse.oracle import check, load
from multiverse_vllm.attention import OURS, offer, steps
from multiverse_vllm.channels import STEPS
from multiverse_vllm.scheduler import rehearsal

SAME, BLOCK = 2e-5, 16
BINDING = bind("multiverse", AutoTokenizer.from_pretrained(TINY))
NESTED = [2, [[30], [8, [[7], [5]], 2], [34]], 3]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of random weights: Triton's interpreter takes a millisecond for what a program does."""
    path = tmp_path_factory.mktemp("random")
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 32}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = AutoConfig.from_pretrained(TINY, initializer_range=0.2, layer_types=["full_attention"] * 2, **sizes)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(path)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(path)
    return path


@pytest.fixture(scope="module", autouse=True)
def _ours() -> Iterator[None]:
    """Any group is worth it. vLLM's platform for CPUs takes no backend but its own, whose place ours takes then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehearsal, "rehearse", lambda _: None)
        patch.setattr(steps, "WORTH", 1)
        patch.setenv("MULTIVERSE_SHAPES", "accept")
        patch.setenv("MULTIVERSE_SHARED_PREFIX", "always")
        offer()
        if ON_CPU:
            register_backend(AttentionBackendEnum.CPU_ATTN, OURS["TRITON_ATTN"])
            patch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))  # Triton's kernels ask
            patch.setattr(triton_reshape_and_cache_flash, "_is_supported_kv_cache_dtype", lambda _: True)
            patch.setattr(triton_attn, "MIN_LAUNCH_GRID_SIZE_2D", 0)  # or a row takes 16 programs
        selector._cached_get_attn_backend.cache_clear()
        yield
        for backend in (AttentionBackendEnum[name] for name in ("CPU_ATTN", *OURS)):
            backend.clear_override()
        selector._cached_get_attn_backend.cache_clear()


def engine(kind: str, model: Path, **options: Any) -> tuple[VLLMHost, Any]:
    settings = {"block_size": BLOCK, "max_model_len": 256} | ({} if ON_CPU else {"attention_backend": "TRITON_ATTN"})
    host = start(kind, model, settings, **options)
    return host, getattr(runner_of(host), STEPS)


def decode(host: VLLMHost, ours: Any, requests: list[Any]) -> tuple[list[Answer], list[list[list[Pass]]]]:
    """Answers, and of each step that was ours the passes of groups; each read what is shared and what is own, once."""
    seen, prepare, before = [], ours.prepare, (ours.taken, ours.kv_tokens)

    def watched(passes: list[Pass], table: torch.Tensor, queries: int) -> bool:
        lengths = [max(part.stop for part in passes if row in part.queries) for row in range(queries)]
        rows = [[(int(table[row, at // BLOCK]), at % BLOCK) for at in range(end)] for row, end in enumerate(lengths)]
        assert kv_tokens(passes) == len({slot for row in rows for slot in row}) < sum(lengths)
        seen.append(passes)
        return bool(prepare(passes, table, queries))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "prepare", watched)
        answers = host.generate_each(requests)
    assert ours.taken - before[0] == len(seen)
    assert ours.kv_tokens - before[1] == sum(map(kv_tokens, seen))
    assert not any(host.leftovers().values()), host.leftovers()
    return answers, [[part for part in passes if len(part.queries) > 1] for passes in seen]


def decode_without(host: VLLMHost, ours: Any, requests: list[Any]) -> list[Answer]:
    """By vLLM's own attention."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "_gate", steps.gate("never"))
        answers, seen = decode(host, ours, requests)
    assert not seen
    return answers


def same(found: list[Answer], expected: list[Answer]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.ids == other.ids
        assert one.logprobs == pytest.approx(other.logprobs, rel=0, abs=SAME)


def asked(length: int, shape: Any, seed: int) -> tuple[list[int], dict[str, Any]]:
    """A request for an answer of exactly that shape."""
    rng, never = Random(seed), dict.fromkeys(BINDING.tags, -100.0)
    options = {"logprobs": 1, "multiverse": {"shape": shape}, "logit_bias": never, "ignore_eos": True}
    return [rng.randrange(100) for _ in range(length)], options


BATCH = [asked(44, NESTED, 1), ([7] * 20, {"logprobs": 1, "max_tokens": 12, "ignore_eos": True})]
"""Blocks within a block, and one that decodes beside them."""


@pytest.fixture(scope="module")
def v1(model: Path) -> tuple[VLLMHost, Any]:
    return engine("V1", model)


@pytest.fixture(scope="module")
def expected(v1: tuple[VLLMHost, Any]) -> list[Answer]:
    return decode_without(*v1, BATCH)


def groups_within_groups(shared: list[list[Pass]]) -> int:
    """In how many steps."""
    return sum(any(set(inner.queries) < set(outer.queries) for inner in step for outer in step) for step in shared)


def test_answers_are_those_of_vllms_own_attention(v1: tuple[VLLMHost, Any], expected: list[Answer]) -> None:
    found, shared = decode(*v1, BATCH)
    same(found, expected)
    assert len(shared) > groups_within_groups(shared) > 2


@pytest.mark.parametrize("kind", ["V2 a step ahead", pytest.param("V2", marks=pytest.mark.long)])
def test_so_they_are_in_the_v2_runner(kind: str, model: Path, expected: list[Answer]) -> None:
    found, shared = decode(*engine(kind, model), BATCH)
    same(found, expected)
    assert groups_within_groups(shared) > 2


@pytest.mark.long
def test_trees_that_were_replayed_share_what_they_have_then(model: Path) -> None:
    host, ours = engine("V1", model, blocks=17)
    batch = [asked(40, [2, [[20], [20], [20]], 3], seed) for seed in (1, 2)]
    found, shared = decode(host, ours, batch)
    assert host.counters()["replays"] > 0
    assert any(len(step) > 1 for step in shared), "two trees at a time"
    same(found, decode_without(host, ours, batch))
    reference, _ = load(str(model))
    for (prompt, _), answer in zip(batch, found, strict=True):
        assert answer.logprobs is not None
        sampled = [value if value < 0 else None for value in answer.logprobs]
        tree = parse_ids(prompt + answer.ids, BINDING)
        assert [len(block.paths) for block in tree.walk()] == [3]
        assert check(tree, reference, [None] * len(prompt) + sampled).max_difference < 1e-4
