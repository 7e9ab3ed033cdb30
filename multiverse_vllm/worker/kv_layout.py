"""Moving single tokens inside the paged KV cache, whatever its layout is.

vLLM shows the cache of a layer as `[blocks, heads, block_size, content]`, with key and value of a token and head in
one `content`, and expresses the layout in memory (NHD, HND, layers or blocks outermost) in the strides. Where the
kernels keep to that, a token is `cache[block, :, offset]`. The CPU backend packs keys inside a block in an order that
depends on the instruction set; it is not guessed: a block is written by the backend's own cache writer and read back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from multiverse.errors import UnsupportedHostError
from multiverse_vllm.plan import Move


class Layout(NamedTuple):
    """How the caches of some layers, `[blocks, heads, block_size, content]`, are addressed by token.

    Attributes:
        view: from such a cache to the view of it that is indexed.
        select: from slots, int64 `[tokens]` (block times block size plus offset), to the index that selects them there.
    """

    view: Callable[[torch.Tensor], torch.Tensor]
    select: Callable[[torch.Tensor], Any]


def _dense(layer: Any) -> Layout:
    """Key and value of a token lie together, in every memory layout."""
    size = layer.kv_cache.shape[2]  # of the kernel's blocks; vLLM may divide one of its own into several of these
    return Layout(lambda cache: cache, lambda slots: (slots // size, slice(None), slots % size))


def _packed(layer: Any) -> Layout:
    """Blocks of the CPU backend, whose interior only its writer knows."""
    _, heads, size, content = layer.kv_cache.shape
    places = torch.arange(heads)[:, None] * (size * content) + _probe(layer)[:, None]  # of a token, within its block
    block = heads * size * content
    return Layout(
        lambda cache: cache.view(-1), lambda slots: (slots // size * block)[:, None, None] + places[slots % size]
    )


LAYOUTS: dict[str, Callable[[Any], Layout]] = {
    "CPU_ATTN": _packed,
    "FLASH_ATTN": _dense,
    "FLASHINFER": _dense,
    "FLEX_ATTENTION": _dense,
    "TRITON_ATTN": _dense,
}
"""By name of the attention backend, from a layer to how its cache is addressed."""


class KVMover:
    """Copies tokens between blocks, in every layer of a model runner whose KV cache was just made."""

    def __init__(self, runner: Any) -> None:
        (group,) = runner.kv_cache_config.kv_cache_groups
        self._block_size = group.kv_cache_spec.block_size
        self._device = runner.device
        self._layers: dict[tuple[object, ...], tuple[Layout, list[Any]]] = {}
        context = runner.compilation_config.static_forward_context
        layers = {context[name].kv_cache.data_ptr(): context[name] for name in group.layer_names}  # some may share one
        for layer in layers.values():
            backend = layer.get_attn_backend().get_name()
            key = backend, layer.kv_cache.shape, layer.kv_cache.dtype
            if key not in self._layers:
                self._layers[key] = LAYOUTS[backend](layer), []
            self._layers[key][1].append(layer)

    def move(self, moves: Sequence[Move]) -> None:
        """Do all `moves` at once: in a layer, everything is read before anything is written.

        The memory this takes meanwhile is that of the moved tokens in one layer.
        """
        from vllm.utils.torch_utils import async_tensor_h2d

        table = np.array(moves, np.int64).reshape(-1, 2, 2)  # source and target; block and offset
        slots = async_tensor_h2d(table @ [self._block_size, 1], device=self._device)
        for layout, layers in self._layers.values():
            source, target = map(layout.select, slots.unbind(1))
            for layer in layers:
                cache = layout.view(layer.kv_cache)
                cache[target] = cache[source]


def _probe(layer: Any) -> torch.Tensor:
    """Where in a block the backend keeps the entries of each token.

    Every entry has a number; for each bit of the numbers, a block is written whose entries are 1 or 2. So the data type
    and the scales of the cache don't matter.

    Returns:
        int64 tensor `[block_size, content]`: offsets of a token's key and value within a block and head.
    """
    cache = layer.kv_cache
    _, heads, size, content = cache.shape
    count = size * content
    numbers = torch.arange(count).view(size, 1, content).expand(size, heads, content)

    def written(entries: torch.Tensor) -> torch.Tensor:
        block = torch.zeros(1, heads, size, content, dtype=cache.dtype)
        key, value = (part.contiguous() for part in entries.to(layer.dtype).chunk(2, dim=2))
        layer.impl.do_kv_cache_update(layer, key, value, block, torch.arange(size))
        return block.view(heads, count)

    zero = written(torch.ones_like(numbers))
    found = torch.zeros(heads, count, dtype=torch.int64)
    for bit in range(count.bit_length()):
        found += (written((numbers >> bit & 1) + 1) != zero).long() << bit
    places = found[0].argsort()
    if not torch.equal(found[:, places], torch.arange(count).expand(heads, count)):
        raise UnsupportedHostError(
            "the KV layout of the CPU backend could not be probed: its writer moves entries apart"
        )
    return places.view(size, content)
