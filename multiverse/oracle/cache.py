"""The KV of all running strands, as one batched `DynamicCache` whose rows can be forked, taken out and put back.

Rows have different lengths, so the batch is padded and a mask says which entries of a row are real. Keys carry their
positions (RoPE is applied before caching), hence the order and the place of entries within a row don't matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from multiverse.attention import additive
from multiverse.errors import UnsupportedModelError
from multiverse.serving.rope import refusals_of_rope

KV = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of one sequence: per layer two tensors `[kv_heads, length, head_dim]`."""


class KVBatch:
    """The cache of a batch of rows."""

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        if reasons := refusals_of_rope(config):
            raise UnsupportedModelError(f"the oracle does not work with {'; '.join(reasons)}")
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"}:
            raise UnsupportedModelError(
                f"layers of type {', '.join(sorted(kinds - {'full_attention'}))} can't be spliced"
            )
        self._model = model
        self._cache: DynamicCache | None = None
        self._valid = torch.zeros(0, 0, dtype=torch.bool)

    def __len__(self) -> int:
        return self._valid.shape[0]

    @torch.inference_mode()
    def forward(self, tokens: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Feed one token to every row.

        Args:
            tokens: one id per row.
            positions: its position, per row.

        Returns:
            logits, float32 tensor `[rows, vocabulary]`.
        """
        self._valid = torch.cat([self._valid, torch.ones(len(self), 1, dtype=torch.bool)], dim=1)
        output = self._model(
            input_ids=torch.tensor(tokens)[:, None],
            position_ids=torch.tensor(positions)[:, None],
            attention_mask=additive(self._valid[:, None, None], self._model.dtype),
            past_key_values=self._cache,
            use_cache=True,
        )
        return output.logits[:, -1].float()

    def row(self, index: int) -> KV:
        """A copy of the KV of one row, without padding."""
        assert self._cache is not None
        valid = self._valid[index]
        return [(layer.keys[index][:, valid], layer.values[index][:, valid]) for layer in self._cache.layers]

    @torch.inference_mode()
    def rebuild(self, keep: Sequence[int], extra: Sequence[KV]) -> None:
        """Replace the rows by those at the indices `keep` followed by `extra`."""
        parts: list[KV] = [*extra]
        lengths = [*self._valid[list(keep)].sum(1).tolist(), *(kv[0][0].shape[1] for kv in extra)]
        width = max(lengths, default=0)
        layers: KV = []
        if keep:
            assert self._cache is not None
            order = self._valid[list(keep)].int().argsort(dim=1, descending=True, stable=True)[:, :width]
            for layer in self._cache.layers:
                layers.append((_gather(layer.keys, keep, order), _gather(layer.values, keep, order)))
        for i, kv in enumerate(zip(*parts, strict=True)):
            new = [torch.stack([_pad(entry[side], width) for entry in kv]) for side in (0, 1)]
            if keep:
                old = layers[i]
                layers[i] = (torch.cat([_pad(old[0], width), new[0]]), torch.cat([_pad(old[1], width), new[1]]))
            else:
                layers.append((new[0], new[1]))
        self._valid = torch.arange(width)[None] < torch.tensor(lengths, dtype=torch.int64)[:, None]
        self._cache = DynamicCache(ddp_cache_data=layers) if lengths else None


@torch.inference_mode()
def prefill(model: Any, ids: Sequence[int], positions: torch.Tensor, mask: torch.Tensor) -> tuple[KV, torch.Tensor]:
    """Compute a whole prompt at once.

    Args:
        ids: `n` token ids.
        positions: int64 tensor `[n]`.
        mask: bool tensor `[n, n]`, True where a query (row) attends to a key.

    Returns:
        its KV and the logits after its last token, float32 tensor `[vocabulary]`.
    """
    cache = DynamicCache()
    output = model(
        input_ids=torch.tensor([list(ids)]),
        position_ids=positions[None],
        attention_mask=additive(mask[None, None], model.dtype),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return [(layer.keys[0], layer.values[0]) for layer in cache.layers], output.logits[0, -1].float()


def splice(prefix: KV, branches: Sequence[KV]) -> KV:
    """Put what each branch added to `prefix` behind it, in order. Nothing is computed."""
    length = prefix[0][0].shape[1]
    spliced: KV = []
    for layer, (keys, values) in enumerate(prefix):
        own = [(branch[layer][0][:, length:], branch[layer][1][:, length:]) for branch in branches]
        spliced.append((torch.cat([keys, *(k for k, _ in own)], 1), torch.cat([values, *(v for _, v in own)], 1)))
    return spliced


def _gather(entries: torch.Tensor, rows: Sequence[int], order: torch.Tensor) -> torch.Tensor:
    """`entries` `[rows, heads, length, dim]` at `rows`, the real ones first in each."""
    chosen = entries[list(rows)]
    index = order[:, None, :, None].expand(-1, chosen.shape[1], -1, chosen.shape[3])
    return chosen.gather(2, index)


def _pad(entries: torch.Tensor, width: int) -> torch.Tensor:
    """Zeros behind the second but last dimension up to `width`."""
    return torch.nn.functional.pad(entries, (0, 0, 0, width - entries.shape[-2]))
