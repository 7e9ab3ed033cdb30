"""What a worker knows that can't work with blocks, refused when its KV cache is made, with the name and the flag.

A joined sequence holds its tokens in any order (SEMANTICS section 2). That is right as long as attention over the past
is a sum over a set of tokens that know their position, so whatever weighs or picks tokens by their place in the KV
cache is not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from vllm import envs

from multiverse.serving.options import Options
from multiverse.serving.refusals import present, refuse
from multiverse.serving.rope import refusals_of_rope
from multiverse_vllm.worker.kv_layout import LAYOUTS

ROPE_PER_POSITION = ("dynamic", "longrope")
"""Kinds of RoPE for which vLLM makes one table of positions when it loads a model, whatever the requests."""

DRAFTS = ("ngram", "suffix", "custom_class")
"""Kinds of speculative decoding whose drafts are made of the tokens that a row has."""
DRAFTS_V2 = ("ngram",)
"""Those that vLLM's V2 model runner has."""

FEATURES = {
    "watermarks (--watermark-config)": "watermark_config",
    "n-gram embeddings, which look at the tokens before (--engram-config)": "engram_config",
    "diffusion language models (--diffusion-config)": "diffusion_config",
    "layers that skip a prompt (--kv-sharing-fast-prefill)": "cache_config.kv_sharing_fast_prefill",
    "sparse KV on hosts (--attention-config)": "attention_config.hisparse_config",
    "batches that are divided (--enable-dbo, --ubatch-size)": "parallel_config.use_ubatching",
    "experts told by token (--enable-return-routed-experts, --aux-output-config)": "aux_output_config.enabled",
    "masks told by token (--return-sampling-mask)": "model_config.return_sampling_mask",
    "answers that are given (--enable-trace-replay)": "model_config.enable_trace_replay",
}
"""What must be off, and where a configuration says whether it is. Not every release has all of it."""


def refuse_configuration(config: Any) -> None:
    """Raise `UnsupportedHostError` with every flag of vLLM's `config` that can't work, before a model is loaded."""
    checks = {
        **_drafts(config),
        "a KV connector (--kv-transfer-config)": config.kv_transfer_config is not None,
        "KV events, which routers would take for those of plain prompts (--kv-events-config)": _publishes_kv(config),
        "pipeline parallelism (--pipeline-parallel-size)": config.parallel_config.pipeline_parallel_size > 1,
        "encoder-decoder models": config.model_config.is_encoder_decoder,
        "blocks of prompts computed in one forward (--multiverse-prefill)": Options.from_environment().prefill
        not in ("auto", "replay"),
        "a front end that drops the field (VLLM_USE_RUST_FRONTEND)": getattr(envs, "VLLM_USE_RUST_FRONTEND", False),
        "vLLM's gRPC server (--grpc)": "vllm.entrypoints.launchers.grpc_server" in sys.modules,
    } | {reason: bool(_read(config, path)) for reason, path in FEATURES.items()}
    refuse(present(checks) + refusals_of_rope(config.model_config.hf_text_config, ROPE_PER_POSITION))


def _read(config: Any, path: str) -> Any:
    """What `config` has under a dotted path; None if it has no such place."""
    for name in path.split("."):
        config = getattr(config, name, None)
    return config


def _drafts(config: Any) -> dict[str, bool]:
    """What of speculative decoding can't work. Drafts of these kinds have no KV of their own, and any row has them."""
    drafts = config.speculative_config
    if drafts is None:
        return {}
    strict = Options.from_environment().structure == "strict"
    possible, where = (DRAFTS_V2, " in the V2 model runner") if config.use_v2_model_runner else (DRAFTS, "")
    kind = (
        f"speculative decoding by {drafts.method!r}{where} (--speculative-config), possible are {', '.join(possible)}"
    )
    return {
        kind: drafts.method not in possible,
        "speculative decoding (--speculative-config) beside --multiverse-structure strict": strict,
    }


def _publishes_kv(config: Any) -> bool:
    return config.kv_events_config is not None and config.kv_events_config.enable_kv_cache_events


def refuse_unsupported(runner: Any) -> None:
    """Raise `UnsupportedHostError` with everything that is in the way, if anything is."""
    config, model = runner.vllm_config.parallel_config, runner.model_config
    checks = {
        "decode context parallelism (--decode-context-parallel-size)": config.decode_context_parallel_size > 1,
        "prefill context parallelism (--prefill-context-parallel-size)": config.prefill_context_parallel_size > 1,
        "M-RoPE, whose positions have three rows": model.uses_mrope,
        "attention windows that begin at the end of the prompt (R-SWA)": model.rswa_window is not None,
        "models with several kinds of KV cache": len(runner.kv_cache_config.kv_cache_groups) != 1,
    }
    first: dict[str, str] = {}
    for name, layer, spec in _layers(runner):
        for reason in _reasons(layer, spec):
            first.setdefault(reason, name)
    refuse(present(checks) + [f"{reason} (layer {name})" for reason, name in first.items()])


def _layers(runner: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, layer and cache specification of every layer that has a KV cache."""
    context = runner.compilation_config.static_forward_context
    for group in runner.kv_cache_config.kv_cache_groups:
        specs = getattr(group.kv_cache_spec, "kv_cache_specs", {})  # if they differ in one group
        for name in group.layer_names:
            yield name, context[name], specs.get(name, group.kv_cache_spec)


def _reasons(layer: Any, spec: Any) -> Iterator[str]:
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVQuantMode

    if type(spec) is not FullAttentionSpec:  # windows, MLA, Mamba, cross attention, ...
        yield f"KV caches of the kind {type(spec).__name__}"
        return
    if spec.sliding_window is not None or layer.sliding_window is not None:
        yield "sliding-window attention"
    if spec.attention_chunk_size is not None:
        yield "chunked local attention"
    if spec.non_causal or layer.attn_type != "decoder":
        yield "attention that is not causal"
    if layer.impl.alibi_slopes is not None:
        yield "ALiBi"
    mode = spec.kv_quant_mode
    if mode not in (KVQuantMode.NONE, KVQuantMode.FP8_PER_TENSOR) and not mode.is_per_token_head:
        yield f"{mode.name} caches (--kv-cache-dtype)"
    if spec.tokens_per_state != 1:
        yield "caches that compress tokens"
    if (backend := layer.get_attn_backend().get_name()) not in LAYOUTS:
        yield f"the KV layout of {backend} (--attention-backend), known are {', '.join(sorted(LAYOUTS))}"


def refuse_shared_prefix(runner: Any, layers: Sequence[Any], ours: bool) -> None:
    """Raise `UnsupportedHostError` if what branches share can't be read once in this configuration.

    Args:
        layers: those that attend.
        ours: whether each has one of our backends.
    """
    if not ours:
        found = ", ".join(sorted({layer.get_attn_backend().get_name() for layer in layers}))
        refuse([f"--multiverse-shared-prefix and the attention backend {found} (--attention-backend)"])
    impls, kv = [layer.impl for layer in layers], layers[0].kv_cache.dtype
    checks = {
        "speculative decoding (--speculative-config)": runner.vllm_config.speculative_config is not None,
        f"a KV cache in {kv} (--kv-cache-dtype)": kv != runner.model_config.dtype,
        "capped attention scores": any(impl.logits_soft_cap for impl in impls),
        "attention sinks": any(impl.sinks is not None for impl in impls),
        "layers with different heads": len({(one.num_heads, one.num_kv_heads, one.head_size) for one in impls}) > 1,
    }
    refuse(f"--multiverse-shared-prefix and {reason}" for reason in present(checks))
