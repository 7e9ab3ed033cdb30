"""Moving single tokens inside the paged KV cache, whatever its layout is.

The CPU backend packs keys inside a block in an order that depends on the instruction set. It is not guessed: a block of
coded values is written by the backend's own cache writer and read back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from multiverse.errors import UnsupportedHostError
from multiverse_vllm.blocks import Move

_ATTRIBUTE = "_multiverse_mover"
_BASE = 100  # codes are written in base-100 digits, which every float format holds exactly


class KVMover:
    """Copies tokens between blocks, in every layer at once."""

    def __init__(self, runner: Any) -> None:
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        maps: dict[tuple[Any, ...], torch.Tensor] = {}
        seen: set[int] = set()
        context = runner.compilation_config.static_forward_context
        for group in runner.kv_cache_config.kv_cache_groups:
            for name in group.layer_names:
                layer = context[name]
                cache: torch.Tensor = layer.kv_cache
                if cache.data_ptr() in seen:
                    continue
                seen.add(cache.data_ptr())
                if cache.device.type != "cpu" or not hasattr(layer, "isa"):
                    kind = f"{type(layer).__name__} on {cache.device}"
                    raise UnsupportedHostError(f"the KV layout of layer {name} ({kind}) is unknown")
                key = (tuple(cache.shape[1:]), cache.dtype, layer.isa)
                if key not in maps:
                    maps[key] = _probe(cache, layer.isa)
                self._layers.append((cache, maps[key]))

    @classmethod
    def of(cls, runner: Any) -> KVMover:
        """The mover of `runner`, made at the first move."""
        mover = getattr(runner, _ATTRIBUTE, None)
        if mover is None:
            mover = cls(runner)
            setattr(runner, _ATTRIBUTE, mover)
        return mover

    def move(self, moves: Sequence[Move]) -> None:
        """Do all `moves` at once: everything is read before anything is written."""
        source, source_offset, target, target_offset = torch.tensor(moves).unbind(1)
        for cache, places in self._layers:
            blocks, heads = cache.shape[:2]
            flat = cache.view(blocks, heads, -1)
            head = torch.arange(heads)[None, :, None]
            values = flat[source[:, None, None], head, places[source_offset][:, None]]
            flat[target[:, None, None], head, places[target_offset][:, None]] = values


def _probe(cache: torch.Tensor, isa: Any) -> torch.Tensor:
    """Where in a block the backend keeps the entries of each token.

    Args:
        cache: float tensor `[blocks, kv_heads, block_size, 2 * head_dim]`.
        isa: what the backend calls its packing.

    Returns:
        int64 tensor `[block_size, 2 * head_dim]`: flat offsets of a token's key and value within a block and head.
    """
    from vllm import _custom_ops

    _, heads, size, double = cache.shape
    dim = double // 2
    count = size * dim
    codes = torch.arange(count)
    found = torch.zeros(2 * count, dtype=torch.int64)
    for power in range(3):
        digit = (codes // _BASE**power % _BASE + 1).to(cache.dtype)
        written = digit.view(size, 1, dim).expand(size, heads, dim).contiguous()
        block = torch.zeros(1, heads, 2 * size, dim, dtype=cache.dtype)
        keys, values = block.chunk(2, dim=2)
        _custom_ops.cpu_attn_reshape_and_cache(written, written, keys, values, torch.arange(size), isa)
        found += (block.view(1, heads, -1)[0, 0].long() - 1) * _BASE**power
    places = torch.empty(2, count, dtype=torch.int64)
    places[0, found[:count]] = torch.arange(count)
    places[1, found[count:]] = torch.arange(count, 2 * count)
    result = torch.cat([places[0].view(size, dim), places[1].view(size, dim)], dim=1)
    if not torch.equal(result.flatten().sort()[0], torch.arange(2 * count)):
        raise UnsupportedHostError("the CPU backend's KV layout could not be probed")
    return result
