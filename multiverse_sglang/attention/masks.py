"""Attention to prompts that hold blocks by a mask of FlashInfer's (`--multiverse-prefill mask`). Not run on a GPU.

The requests of a batch stay as they are, whatever SGLang caches and cuts into chunks. Their KV is written before they
attend, from pages, and a wrapper of ours takes the place of SGLang's: one with a boolean mask, or, where that would be
too large, one that evaluates the mask's intervals itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from sglang.srt.layers.attention.flashinfer_backend import FlashInferAttnBackend, PrefillMetadata
from sglang.srt.layers.radix_attention import RadixAttention

from multiverse.attention.flashinfer import custom_mask, mask_size
from multiverse.attention.interval_variant import OPTIONS, jit_arguments
from multiverse.attention.intervals import Queries, hidden_of
from multiverse_sglang.host import ForwardBatch, ModelRunner
from multiverse_sglang.scheduler.single_pass import BatchSegment

LARGEST = 256 << 20
"""Bytes of a boolean mask. FlashInfer packs it into an eighth beside it."""


def obstacles_to_masks(runner: ModelRunner) -> dict[str, bool]:
    """What of `runner` keeps FlashInfer from being given a mask, and whether it is there."""
    backend = runner.attn_backend
    if not isinstance(backend, FlashInferAttnBackend):
        return {f"{type(backend).__name__}, which is not FlashInfer's (--attention-backend)": True}
    layers = [module for module in runner.model.modules() if isinstance(module, RadixAttention)]
    return {
        "a KV cache that is dequantised for attention (--kv-cache-dtype)": backend.prefill_uses_dequant_workspace,
        "capped attention scores": any(layer.logit_cap for layer in layers),
        "several kinds of attention in one model": backend.num_wrappers != 1,
    }


class Masks:
    """FlashInfer's wrappers that take masks; made when the server starts, when one of them may have to be compiled."""

    def __init__(self, backend: Any) -> None:
        import flashinfer

        make, planner = flashinfer.BatchPrefillWithPagedKVCacheWrapper, backend.indices_updater_prefill
        arguments = jit_arguments(planner.q_data_type, planner.data_type, planner.head_dim)
        given = {"float_workspace_buffer": backend.workspace_buffer, "kv_layout": "NHD", "backend": "fa2"}
        self._by_mask = make(**given)
        variant = make(**given, jit_args=arguments, jit_kwargs=OPTIONS, variant_owns_mask=True)
        self._by_intervals = IntervalPrefill(variant)

    def attention(
        self, backend: Any, found: Sequence[BatchSegment], fail: Callable[[Exception], None]
    ) -> MaskAttention:
        """What takes the place of `backend` for a batch."""
        return MaskAttention(backend, self, found, fail)

    def plan(self, backend: Any, forward: ForwardBatch, found: Sequence[BatchSegment]) -> Any:
        """The wrapper for a batch, planned by SGLang's own planner."""
        requests = computed(found)
        wrapper: Any = self._by_mask
        mask, device = None, backend.workspace_buffer.device
        if mask_size(requests) <= LARGEST:
            mask = custom_mask(requests, device)
        else:
            wrapper = self._by_intervals
            wrapper.hidden = hidden_of([one for request in requests for one in request]).to(device)
        backend.indices_updater_prefill.call_begin_forward(
            backend.prefill_wrapper_ragged,
            wrapper,
            forward.req_pool_indices,
            forward.seq_lens,
            forward.seq_lens_sum,
            forward.seq_lens,
            forward.extend_prefix_lens,
            None,
            backend.kv_indptr[0],
            backend.qo_indptr[0],
            False,
            None,
            cross_attention_custom_mask=mask,
            plan=forward.kv_loc_plan,
        )
        return wrapper


def computed(found: Sequence[BatchSegment]) -> list[list[Queries]]:
    """What of each request of a batch is computed now."""
    return [
        [Queries(one.prefix, one.prefix + one.length, one.hidden) for one in request]
        for _, request in groupby(found, lambda one: one.source)
    ]


class IntervalPrefill:
    """The variant's wrapper, called as SGLang calls FlashInfer's.

    Attributes:
        hidden: of the batch that is planned for.
    """

    hidden: torch.Tensor

    def __init__(self, wrapper: Any) -> None:
        self._wrapper, self.begin_forward = wrapper, wrapper.plan

    def forward(
        self, q: torch.Tensor, kv: object, *, sm_scale: float, k_scale: float | None, v_scale: float | None, **_: object
    ) -> Any:
        """What SGLang says of causality and windows is the mask's to say."""
        scale = sm_scale * (1.0 if k_scale is None else k_scale)
        return self._wrapper.run(q, kv, self.hidden, self.hidden.shape[1], scale, v_scale=v_scale)


class MaskAttention:
    """An attention backend of SGLang, which masks what the tokens of a batch don't see."""

    def __init__(
        self, backend: Any, masks: Masks, found: Sequence[BatchSegment], fail: Callable[[Exception], None]
    ) -> None:
        self._backend, self._masks, self._found, self._fail = backend, masks, found, fail

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def init_forward_metadata(self, forward: ForwardBatch) -> None:
        """Plan with the mask. If that fails, those that need it do, and the batch is attended to as SGLang does."""
        try:
            wrapper = self._masks.plan(self._backend, forward, self._found)
        except Exception as error:
            self._fail(error)
            self._backend.init_forward_metadata(forward)
        else:
            self._backend.forward_metadata = PrefillMetadata([wrapper], use_ragged=False, extend_no_prefix=False)
