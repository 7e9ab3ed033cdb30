"""What blocks can't work with: configurations, which are refused at start, and requests, which decode plainly."""

from __future__ import annotations

from typing import Any

from sglang.srt.environ import envs
from sglang.srt.layers.radix_attention import AttentionType, RadixAttention
from sglang.srt.mem_cache.allocator.page_interleave import page_interleave_shard_size

from multiverse.errors import OptionError
from multiverse.serving.admission.policies import make_policy
from multiverse.serving.options import Options
from multiverse.serving.refusals import present, refuse
from multiverse.serving.rope import refusals_of_rope
from multiverse.wire.responses import STRUCTURED_OUTPUTS
from multiverse_sglang.channels import MEMBER
from multiverse_sglang.host import ModelRunner, Request, ServerArgs
from multiverse_sglang.sampling import check_branch_sampling
from multiverse_sglang.scheduler.program import Program
from multiverse_sglang.scheduler.slot_moves import can_move

_BIT_MASKS = ("xgrammar", "llguidance", "none")
"""Grammar backends of SGLang whose masks are bits."""
_DRAFTS = (None, "NGRAM")
"""Kinds of speculative decoding: none, or one whose drafts are made of what was said. Models that draft have KV of
their own, which a fork would have to copy and a splice to move."""


def is_new(request: Request, min_tokens: int = 1) -> bool:
    """Whether a request that was queued is one that nobody has looked at, and that is to generate `min_tokens` tokens.

    For several answers to one prompt SGLang computes that first, with a request that generates nothing.
    """
    known = hasattr(request, MEMBER) or request.finished() or request.to_finish is not None
    return not known and request.sampling_params.max_new_tokens >= min_tokens


def check_options(request: Request, options: Options) -> None:
    """Raise OptionError if the client of `request` asks for blocks and for something that blocks can't have."""
    if options.enabled and request.grammar is not None:
        raise OptionError(STRUCTURED_OUTPUTS)
    if options.enabled and _asks_for_internals(request):
        raise OptionError("hidden states, experts and sampling masks are told of one sequence, blocks make several")
    check_branch_sampling(options)


def check_drafts(options: Options) -> None:
    """Raise OptionError if a request asks for what it can't have on a server that drafts."""
    if options.structure == "strict":
        raise OptionError("structure can't be 'strict' on a server with speculative decoding")
    if options.drafts is not None:
        raise OptionError("drafts can't be set on SGLang, which drafts as many tokens for all rows")


def check_program(request: Request, program: Program) -> None:
    """Raise OptionError if `request` of a state of a program asks for something that a joined text can't have."""
    if program.spans and not eligible(request):
        raise OptionError("a state that was joined can't have a grammar, a session, beams, images or hidden states")


def eligible(request: Any) -> bool:
    """Whether a request can have blocks. The others decode as without the plugin."""
    return not (
        request.grammar is not None
        or request.session is not None
        or request.beam_group is not None
        or request.multimodal_inputs is not None
        or request.input_embeds is not None
        or _asks_for_internals(request)
    )


def _asks_for_internals(request: Any) -> bool:
    """Whether a client wants to see, token by token, what a model did to say them."""
    names = ("return_hidden_states", "return_routed_experts", "return_indexer_topk", "return_sampling_mask")
    return any(getattr(request, name) for name in names)


def refuse_arguments(arguments: ServerArgs) -> None:
    """Raise UnsupportedHostError if blocks can't work with these `ServerArgs`, before anything is loaded."""
    drafts = arguments.speculative_algorithm
    checks = {
        f"speculative decoding by {drafts!r} (--speculative-algorithm), possible is NGRAM": drafts not in _DRAFTS,
        "lengths of drafts (--multiverse-drafts)": Options.from_environment().drafts is not None,
        "prefill-decode disaggregation (--disaggregation-mode)": arguments.disaggregation_mode != "null",
        "pipeline parallelism (--pp-size)": arguments.pp_size > 1,
        "a hierarchical KV cache (--enable-hierarchical-cache)": arguments.enable_hierarchical_cache,
        "an external KV cache (--enable-lmcache)": arguments.enable_lmcache,
        "an external KV cache (--enable-flexkv)": arguments.enable_flexkv,
        "a radix cache that is not SGLang's own (--radix-cache-backend)": arguments.radix_cache_backend is not None,
        "pools that are one (--enable-unified-memory, --enable-page-major-kv-layout)": arguments.enable_unified_memory
        or arguments.enable_page_major_kv_layout,
        "the KV canary, which expects causal KV (--kv-canary)": arguments.kv_canary != "none",
        "a radix tree that is told what to forget (--strip-thinking-cache)": arguments.strip_thinking_cache,
        "a grammar for each request (--enable-strict-thinking)": arguments.enable_strict_thinking,
        "watermarks (--enable-watermark)": arguments.enable_watermark,
        "prefill context parallelism (--enable-prefill-cp)": arguments.enable_prefill_cp,
        "batches that are divided (--enable-two-batch-overlap, --enable-pdmux)": arguments.enable_two_batch_overlap
        or arguments.enable_pdmux,
        "a front end that drops the field (SGLANG_RUST_SERVER)": envs.SGLANG_RUST_SERVER.get(),
        "another runner (SGLANG_USE_MLX)": envs.SGLANG_USE_MLX.get(),
        "published KV events (--kv-events-config)": arguments.kv_events_config is not None,
        "schedulers that Ray starts (--use-ray)": arguments.use_ray,
        "SGLang's gRPC servers (--grpc-port, --grpc-mode, --smg-grpc-mode)": arguments.grpc_port is not None
        or arguments.grpc_mode
        or arguments.smg_grpc_mode,
        "a server without tokenizer (--skip-tokenizer-init)": arguments.skip_tokenizer_init,
        "several tokenizer workers (--tokenizer-worker-num)": arguments.tokenizer_worker_num > 1,
    }
    refuse(present(checks))


def refuse_unsupported(scheduler: Any, options: Options) -> None:
    """Raise UnsupportedHostError if blocks can't work in `scheduler` as it is configured."""
    backend = scheduler.server_args.grammar_backend or "none"
    allocator = scheduler.token_to_kv_pool_allocator
    kv = allocator.get_kvcache()
    checks = {
        f"pages of more than one token (--page-size) in a {type(kv).__name__}": scheduler.page_size > 1
        and not can_move(kv),
        "KV pages that are divided among ranks": allocator.page_size != scheduler.page_size
        or page_interleave_shard_size(allocator) > 1,
        "data-parallel attention (--enable-dp-attention)": scheduler.require_mlp_sync,
        "a sparse or external KV cache": scheduler.enable_hisparse or scheduler.enable_unified_cache_external_linker,
        "models with sliding-window layers": scheduler.is_hybrid_swa,
        "models with state-space layers": scheduler.is_hybrid_ssm,
        "multimodal positions (M-RoPE)": scheduler.model_config.model_is_mrope,
        "encoder-decoder models": scheduler.model_config.is_encoder_decoder,
        "diffusion language models": scheduler.dllm_config is not None,
        "embedding models": not scheduler.is_generation,
        f"--multiverse-structure strict with --grammar-backend {backend}": options.structure == "strict"
        and backend not in _BIT_MASKS,
        **_beside_drafts(scheduler, options),
    }
    refuse(present(checks) + refusals_of_rope(scheduler.model_config.hf_text_config))


def _beside_drafts(scheduler: Any, options: Options) -> dict[str, bool]:
    """What can't be beside speculative decoding, and whether it is."""
    drafting = not scheduler.spec_algorithm.is_none()
    checks = {
        "scheduling a step ahead (leave it to --disable-overlap-schedule)": scheduler.enable_overlap,
        "--multiverse-structure strict": options.structure == "strict",
        f"--multiverse-admission {options.admission}": make_policy(options.admission) is not None,
    }
    return {f"speculative decoding beside {kind}": drafting and there for kind, there in checks.items()}


def refuse_attention(runner: ModelRunner) -> None:
    """Raise UnsupportedHostError if `--attention-backend multiverse` can't compute what the model of `runner` needs."""
    layers = [module for module in runner.model.modules() if isinstance(module, RadixAttention)]
    checks = {
        f"the device {runner.device!r}": runner.device not in ("cpu", "cuda"),
        "compiled decode steps (--enable-torch-compile)": runner.server_args.enable_torch_compile,
        "latent attention (MLA)": runner.use_mla_backend or any(x.qk_head_dim != x.v_head_dim for x in layers),
        "sliding-window layers": any(layer.sliding_window_size > -1 for layer in layers),
        "capped attention scores": any(layer.logit_cap for layer in layers),
        "layers that are not causal": any(
            layer.is_cross_attention or layer.attn_type != AttentionType.DECODER for layer in layers
        ),
    }
    refuse(f"--attention-backend multiverse and {reason}" for reason in present(checks))


def refuse_around(runner: ModelRunner) -> None:
    """Raise UnsupportedHostError if one of SGLang's backends can't have our decode steps in this configuration."""
    arguments, kv = runner.server_args, runner.token_to_kv_pool
    layers = [module for module in runner.model.modules() if isinstance(module, RadixAttention)]
    shapes = {(layer.tp_q_head_num, layer.tp_k_head_num, layer.qk_head_dim, layer.scaling) for layer in layers}
    checks = {
        "another backend for prompts or for decoding (--prefill-attention-backend, --decode-attention-backend)": (
            runner.prefill_attention_backend_str != runner.decode_attention_backend_str
        ),
        f"a KV cache in {kv.dtype} (--kv-cache-dtype)": kv.dtype != runner.dtype,
        f"a KV cache in the layout {getattr(kv, 'kv_cache_layout', type(kv).__name__)!r}": (
            getattr(kv, "kv_cache_layout", None) != "nhd"
        ),
        "layers with different heads": len(shapes) != 1,
        "context parallelism (--attn-cp-size, --dcp-size)": arguments.attn_cp_size > 1 or arguments.dcp_size > 1,
        "KV indices that are translated": runner.kv_index_translator.reads_are_translated,
    }
    refuse(f"--attention-backend multiverse around SGLang's and {reason}" for reason in present(checks))
