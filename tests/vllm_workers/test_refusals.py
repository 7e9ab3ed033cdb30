"""What can't work with blocks is refused when the engine starts, by name, and never later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from caches import BACKENDS, layers_of, make_runner
from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM
from vllm import envs
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.rotary_embedding import get_rope
from vllm.v1.attention.backends import cpu_attn
from vllm.v1.kv_cache_interface import (
    KVCacheGroupSpec,
    KVQuantMode,
    MambaSpec,
    MLAAttentionSpec,
    SlidingWindowSpec,
    UniformTypeKVCacheSpecs,
)
from vllm_host import LLM

from multiverse.errors import UnsupportedHostError
from multiverse.models import TINY
from multiverse_vllm.refusals import refuse_configuration, refuse_unsupported
from multiverse_vllm.worker.kv_layout import LAYOUTS, KVMover


def group_of(runner: Any) -> KVCacheGroupSpec:
    return runner.kv_cache_config.kv_cache_groups[0]


def change_spec(**changes: Any) -> Callable[[Any], None]:
    def change(runner: Any) -> None:
        group_of(runner).kv_cache_spec = replace(group_of(runner).kv_cache_spec, **changes)

    return change


def set_spec(spec: Any) -> Callable[[Any], None]:
    return lambda runner: setattr(group_of(runner), "kv_cache_spec", spec)


def set_on(where: str, **values: Any) -> Callable[[Any], None]:
    def change(runner: Any) -> None:
        found = {"model": runner.model_config, "parallel": runner.vllm_config.parallel_config}
        found["layer"] = layers_of(runner)[1]
        vars(found[where]).update(values)

    return change


def a_second_group(runner: Any) -> None:
    runner.kv_cache_config.kv_cache_groups.append(group_of(runner))


def one_layer_of_another_kind(runner: Any) -> None:
    spec, (first, second) = group_of(runner).kv_cache_spec, group_of(runner).layer_names
    specs = {first: spec, second: replace(spec, attention_chunk_size=64)}
    group_of(runner).kv_cache_spec = UniformTypeKVCacheSpecs(block_size=spec.block_size, kv_cache_specs=specs)


SHAPE: dict[str, Any] = {"block_size": 64, "num_kv_heads": 1, "head_size": 32, "dtype": torch.float32}
UNKNOWN = SimpleNamespace(get_name=lambda: "ROCM_ATTN")
REFUSED: list[tuple[Callable[[Any], None], str]] = [
    (set_spec(SlidingWindowSpec(**SHAPE, sliding_window=64)), "the kind SlidingWindowSpec (layer layers.0.attn)"),
    (set_spec(MLAAttentionSpec(**SHAPE)), "the kind MLAAttentionSpec"),
    (set_spec(MambaSpec(block_size=64, shapes=((1,),), dtypes=(torch.float32,))), "the kind MambaSpec"),
    (change_spec(sliding_window=64), "sliding-window attention"),
    (change_spec(attention_chunk_size=64), "chunked local attention"),
    (change_spec(non_causal=True), "attention that is not causal"),
    (change_spec(kv_quant_mode=KVQuantMode.NVFP4), "NVFP4 caches (--kv-cache-dtype)"),
    (change_spec(tokens_per_state=2), "caches that compress tokens"),
    (set_on("layer", sliding_window=64), "sliding-window attention (layer layers.1.attn)"),
    (set_on("layer", attn_type="encoder_decoder"), "attention that is not causal"),
    (set_on("layer", impl=SimpleNamespace(alibi_slopes=torch.ones(3))), "ALiBi (layer layers.1.attn)"),
    (
        set_on("layer", get_attn_backend=lambda: UNKNOWN),
        "layout of ROCM_ATTN (--attention-backend), known are",
    ),
    (set_on("model", uses_mrope=True), "M-RoPE"),
    (set_on("model", rswa_window=64), "R-SWA"),
    (set_on("parallel", decode_context_parallel_size=2), "--decode-context-parallel-size"),
    (set_on("parallel", prefill_context_parallel_size=2), "--prefill-context-parallel-size"),
    (a_second_group, "several kinds of KV cache"),
    (one_layer_of_another_kind, "chunked local attention (layer layers.1.attn)"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_looks_at_the_place_of_a_token_in_the_cache_is_refused_by_name(
    change: Callable[[Any], None], message: str
) -> None:
    runner = make_runner("FLASH_ATTN")
    refuse_unsupported(runner)
    change(runner)
    with pytest.raises(UnsupportedHostError) as refused:
        refuse_unsupported(runner)
    assert message in str(refused.value)


def test_everything_that_is_in_the_way_is_said_at_once() -> None:
    runner = make_runner("FLASH_ATTN")
    set_on("model", uses_mrope=True)(runner)
    change_spec(sliding_window=64, kv_quant_mode=KVQuantMode.NVFP4)(runner)
    with pytest.raises(UnsupportedHostError, match=r"M-RoPE.*sliding-window.*NVFP4"):
        refuse_unsupported(runner)


def a_configuration(rope: dict[str, str]) -> Any:
    """What is looked at before a model is loaded, of a configuration that has nothing else in the way."""
    text = SimpleNamespace(rope_parameters=rope)
    return SimpleNamespace(
        speculative_config=None,
        kv_transfer_config=None,
        kv_events_config=None,
        parallel_config=SimpleNamespace(pipeline_parallel_size=1),
        model_config=SimpleNamespace(is_encoder_decoder=False, hf_text_config=text),
    )


def test_rope_that_vllm_computes_per_position_is_taken_and_other_kinds_are_not() -> None:
    for kind in ("default", "linear", "yarn", "llama3", "dynamic", "longrope"):
        refuse_configuration(a_configuration({"rope_type": kind}))
    with pytest.raises(UnsupportedHostError, match="RoPE of the kind 'ntk'"):
        refuse_configuration(a_configuration({"rope_type": "ntk"}))


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_vllm_makes_the_keys_of_a_position_whatever_else_is_computed(kind: str) -> None:
    """Why these kinds are taken: one table, made with the model, also where the positions pass the original context."""
    head, original, longest = 16, 32, 128
    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "original_max_position_embeddings": original}
    rope = {"rope_type": kind, "rope_theta": 10000.0, **(factors if kind == "longrope" else {"factor": 4.0})}
    config = VllmConfig()
    config.model_config = SimpleNamespace(max_model_len=longest)
    with set_current_vllm_config(config):
        made = get_rope(head, longest, rope_parameters=rope, dtype=torch.float32)
    rotate = getattr(made, "forward_native", made)
    keys = torch.randn(1, head).repeat(2, 1)
    alone = rotate(torch.tensor([5]), keys[:1].clone(), keys[:1].clone())[1]
    beside = rotate(torch.tensor([5, longest - 1]), keys.clone(), keys.clone())[1]
    assert torch.equal(alone[0], beside[0])
    assert not torch.equal(beside[0], beside[1])


def test_the_table_of_layouts_has_every_backend_that_is_tested_and_no_other() -> None:
    assert LAYOUTS.keys() == BACKENDS.keys()


def test_a_cpu_cache_whose_writer_can_not_be_understood_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SimpleNamespace(model_config=SimpleNamespace(dtype=torch.float32))
    monkeypatch.setattr(cpu_attn, "get_current_vllm_config", lambda: config)
    runner = make_runner("CPU_ATTN")
    for layer in layers_of(runner):
        layer.impl = SimpleNamespace(do_kv_cache_update=lambda *_: None)
    with pytest.raises(UnsupportedHostError, match="could not be probed"):
        KVMover(runner)


@pytest.mark.parametrize("v2", ["0", "1"])
def test_an_engine_with_a_sliding_window_does_not_start(v2: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", v2)
    envs.disable_envs_cache()  # of an engine before
    windowed = {"use_sliding_window": True, "sliding_window": 64, "layer_types": ["sliding_attention"] * 4}
    with pytest.raises(UnsupportedHostError, match=r"SlidingWindowSpec \(layer model\.layers\.0"):
        LLM(str(TINY), dtype="float32", max_model_len=256, enforce_eager=True, hf_overrides=windowed)


def test_an_engine_with_alibi_does_not_start(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=64, n_layer=1, n_head=2)
    BloomForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedHostError, match=r"ALiBi \(layer transformer\.h\.0"):
        LLM(str(tmp_path), dtype="float32", max_model_len=256, enforce_eager=True)
