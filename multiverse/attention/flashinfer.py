"""Arguments for FlashInfer's prefill wrappers: a boolean mask per request, flattened. Not run on a GPU.

FlashInfer checks little of this itself: of a mask with a wrong length or with offsets past int32 it computes something
else. Only its `fa2` backend evaluates such masks, at twice the cost of a causal prefill, so replay (see
`multiverse.decoding.replay`) and the interval form (`interval_variant`) are the better ways; this one is for kernels
that have nothing else. FlashInfer is not imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch

from multiverse.attention.intervals import Queries, queries
from multiverse.errors import UnsupportedModelError
from multiverse.structure.layout import Layout

BACKENDS = ("fa2", "auto")
"""Backends of a wrapper that can take a mask; `auto` becomes `fa2` when there is one."""

MOST_BITS = (1 << 31) - 1
"""FlashInfer keeps the offset of each request's mask in an int32."""

Computed = Sequence[Sequence[Queries]]
"""Of each request of a batch, what is computed now: consecutive tokens, its last ones so far."""


def batch_arguments(
    layouts: Sequence[Layout], cached: Sequence[int] | None = None, *, backend: str = "fa2"
) -> dict[str, torch.Tensor]:
    """What structure adds to `BatchPrefillWithRaggedKVCacheWrapper.plan(...)`.

    For the paged wrapper pass `custom_mask` and `qo_indptr`; its page tables are the host's.

    Args:
        layouts: one per request.
        cached: how many of its tokens are in the KV cache already and are no queries; none if not given.
        backend: that of the wrapper.

    Returns:
        ``qo_indptr`` and ``kv_indptr``, int32 `[requests + 1]`: where each request's queries and keys begin;
        ``custom_mask``, bool `[sum of queries x keys]`: for every request, row by row, True where a query sees a key.

    Raises:
        UnsupportedModelError: if the backend ignores or refuses masks, or if the mask is larger than its offsets.
        ValueError: if a request has no query, or more cached tokens than it has.
    """
    before = [0] * len(layouts) if cached is None else list(cached)
    if len(before) != len(layouts):
        raise ValueError(f"{len(layouts)} requests but {len(before)} numbers of cached tokens")
    for number, (layout, known) in enumerate(zip(layouts, before, strict=True)):
        if not 0 <= known < layout.length:
            raise ValueError(f"request {number}: {known} tokens are cached, but it has {layout.length} in all")
    if backend not in BACKENDS:
        raise UnsupportedModelError(f"FlashInfer's backend {backend!r} takes no mask; make the wrapper with 'fa2'")
    computed = [queries(layout, known) for layout, known in zip(layouts, before, strict=True)]
    return {
        "qo_indptr": _indptr([layout.length - known for layout, known in zip(layouts, before, strict=True)]),
        "kv_indptr": _indptr([layout.length for layout in layouts]),
        "custom_mask": custom_mask(computed),
    }


def mask_size(computed: Computed) -> int:
    """How many pairs of a query and a key a batch has: bytes of its boolean mask, bits of the packed one."""
    return sum((one[-1].end - one[0].start) * one[-1].end for one in computed)


def custom_mask(computed: Computed, device: str | torch.device = "cpu") -> torch.Tensor:
    """The mask of a batch, made on `device`: bool `[mask_size]`, for every request row by row.

    Raises:
        UnsupportedModelError: if it is larger than FlashInfer's offsets.
    """
    size = mask_size(computed)
    if size > MOST_BITS:
        raise UnsupportedModelError(
            f"the masks of this batch have {size} bits, FlashInfer's offsets end at {MOST_BITS}; use fewer or shorter "
            "requests, or replay"
        )
    flat = torch.empty(size, dtype=torch.bool, device=device)
    at = 0
    for request in computed:
        keys = torch.arange(request[-1].end, device=device)
        for start, end, hidden in request:
            rows = flat[at : at + (end - start) * len(keys)].view(-1, len(keys))
            torch.le(keys, keys[start:end, None], out=rows)
            for first, last in hidden:
                rows[:, first:last] = False
            at += rows.numel()
    assert at == size, "a gap between the tokens of a request"
    return flat


def single_arguments(layout: Layout, cached: int = 0, *, backend: str = "fa2") -> dict[str, torch.Tensor]:
    """What structure adds to `single_prefill_with_kv_cache(...)`: an eighth of the memory.

    Only for single requests: with several, FlashInfer takes offsets in bits for offsets in bytes.

    Returns:
        ``packed_custom_mask``, uint8 `[ceil(queries x keys / 8)]`, the first pair in the lowest bit.

    Raises:
        UnsupportedModelError, ValueError: as `batch_arguments`.
    """
    bits = batch_arguments([layout], [cached], backend=backend)["custom_mask"]
    padded = torch.nn.functional.pad(bits, (0, -len(bits) % 8)).view(-1, 8)
    weights = torch.tensor([1 << i for i in range(8)], dtype=torch.uint8)
    return {"packed_custom_mask": (padded.to(torch.uint8) * weights).sum(1, dtype=torch.uint8)}


def _indptr(counts: Sequence[int]) -> torch.Tensor:
    return torch.tensor([0, *accumulate(counts)], dtype=torch.int32)
