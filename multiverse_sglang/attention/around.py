"""A backend of SGLang with decode steps of our own: those in which strands share a prefix, where that pays.

Prompts, steps without groups and CUDA graphs stay the backend's. A step that we take runs without a graph, since graphs
were captured for steps without groups; what that costs is in the table that decides (`multiverse.serving.sharing`).
Run neither on a GPU nor in an engine yet: around a stand-in for a backend, the engines by themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from sglang.srt.layers.attention.attention_registry import (
    create_flashattention_v3_backend,
    create_flashinfer_backend,
    create_triton_backend,
)
from sglang.srt.layers.radix_attention import RadixAttention
from sglang.srt.mem_cache.memory_pool import KVWriteLoc

from multiverse.attention.batched import WORTH
from multiverse.attention.shared_prefix import Group, Pass, kv_tokens, plan
from multiverse.serving.options import Options
from multiverse.serving.sharing import NEVER, gate
from multiverse_sglang.channels import STEPS
from multiverse_sglang.host import ForwardBatch, ModelRunner
from multiverse_sglang.refusals import refuse_around, refuse_attention

log = logging.getLogger(__name__)
_THEIRS = {
    "triton": create_triton_backend,
    "fa3": create_flashattention_v3_backend,
    "flashinfer": create_flashinfer_backend,
}


class Engine(Protocol):
    """`TritonAttention` and `CascadeAttention`."""

    def prepare(self, passes: Sequence[Pass], table: torch.Tensor, rows: torch.Tensor, queries: int) -> None: ...
    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor: ...


def put_around(name: str, runner: ModelRunner) -> object:
    """SGLang's backend `name` with our decode steps.

    Raises:
        UnsupportedHostError: if the model or the configuration needs something else.
    """
    refuse_attention(runner)
    refuse_around(runner)
    engine = _engine(name, runner)
    backend = _THEIRS[name](runner)
    setattr(backend, STEPS, SharedPrefixSteps(backend, engine, runner))
    return backend


def _engine(name: str, runner: ModelRunner) -> Engine:
    layer = next(module for module in runner.model.modules() if isinstance(module, RadixAttention))
    heads, kv_heads = layer.tp_q_head_num, layer.tp_k_head_num
    if name == "flashinfer":
        from multiverse.attention.cascade import CascadeAttention

        return CascadeAttention(heads, kv_heads, layer.qk_head_dim, layer.scaling, runner.dtype, runner.device)
    from multiverse.attention.triton_decode import TritonAttention

    on_cuda = runner.device == "cuda"
    processors = torch.cuda.get_device_properties().multi_processor_count if on_cuda else 1
    return TritonAttention(heads, kv_heads, processors=processors)


class SharedPrefixSteps:
    """What decides and computes for a backend of SGLang, in place of two of its methods.

    The backend itself has `groups_of_step` (`channels.GROUPS`), the groups of the next decode step if that is ours, and
    `kv_tokens`, the slots read per layer by all steps that were.
    """

    def __init__(self, backend: Any, engine: Engine, runner: ModelRunner) -> None:
        self._backend, self._engine, self._ours = backend, engine, False
        self._init_theirs, self._decode_theirs = backend.init_forward_metadata, backend.forward_decode
        self._gate = gate(Options.from_environment().shared_prefix or NEVER)
        self._rows, self._pool = runner.req_to_token_pool, runner.token_to_kv_pool
        self._kv_heads = runner.model_config.get_total_num_kv_heads()
        backend.kv_tokens, backend.groups_of_step, backend.needs_cpu_seq_lens = 0, (), True
        backend.init_forward_metadata, backend.forward_decode = self.init_forward_metadata, self.forward_decode

    def expect(self, groups: Sequence[Group]) -> bool:
        """Who shares what in the next step. Whether it will be ours."""
        self._backend.groups_of_step = self._gate.paying(groups, self._kv_heads)
        return bool(self._backend.groups_of_step)

    def forget(self) -> None:
        """The step is over: whatever calls the backend next, a capture of graphs say, gets SGLang's own."""
        self._backend.groups_of_step, self._ours = (), False

    def init_forward_metadata(self, forward_batch: ForwardBatch) -> None:
        """Plan as SGLang does, in any case, so that a step which we fail to plan is SGLang's; then for ours."""
        self._init_theirs(forward_batch)
        mine = bool(self._backend.groups_of_step) and forward_batch.forward_mode.is_decode()
        self._ours = mine and self._plan(forward_batch)

    def _plan(self, forward: ForwardBatch) -> bool:
        lengths = forward.seq_lens if forward.seq_lens_cpu is None else forward.seq_lens_cpu
        try:
            passes = plan(lengths.tolist(), self._backend.groups_of_step, WORTH)
            self._engine.prepare(passes, self._rows.req_to_token, forward.req_pool_indices, len(lengths))
        except Exception:
            log.exception("a decode step that shares a prefix is computed by SGLang's own attention")
            return False
        self._backend.kv_tokens += kv_tokens(passes)
        return True

    def forward_decode(
        self,
        q: torch.Tensor,
        k: torch.Tensor | None,
        v: torch.Tensor,
        layer: RadixAttention,
        forward_batch: ForwardBatch,
        save_kv_cache: bool = True,
        **more: Any,
    ) -> torch.Tensor:
        """Write the KV of the new tokens, then attend: `[tokens, heads x width]`."""
        if not self._ours:
            theirs: torch.Tensor = self._decode_theirs(q, k, v, layer, forward_batch, save_kv_cache, **more)
            return theirs
        pool = self._pool
        if save_kv_cache and k is not None:
            pool.set_kv_buffer(layer, KVWriteLoc(forward_batch.out_cache_loc), k, v)
        query = q.reshape(-1, layer.tp_q_head_num, layer.qk_head_dim)
        keys, values = pool.get_key_buffer(layer.layer_id), pool.get_value_buffer(layer.layer_id)
        return self._engine(query, keys, values, layer.scaling).flatten(1)
