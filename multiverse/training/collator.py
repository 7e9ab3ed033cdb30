"""From rows to what a model's forward takes: explicit positions and an explicit mask, always both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from multiverse.attention import additive, block_mask, dense_mask, positions
from multiverse.structure.layout import Layout
from multiverse.training.encode import IGNORE, Encoded


def collate(rows: Sequence[Encoded], attention: str = "sdpa", device: str | torch.device = "cpu") -> dict[str, Any]:
    """The arguments of a causal LM's forward for one row; pack examples to get more of them into a batch.

    Args:
        rows: one row of ``n`` tokens, ``k`` of which have a target.
        attention: the model's attention implementation.
        device: where the block mask is to be.

    Returns:
        ``input_ids`` and ``position_ids``, int64 `[1, n]`; ``attention_mask``, what the
        implementation takes: `[1, 1, n, n]`, boolean for `sdpa`, additive for `eager`, or a `BlockMask`;
        ``logits_to_keep``, int64 `[k]`: the places that have a target, since logits of the others would be computed
        for nothing; ``labels`` and ``shift_labels``, int64 `[1, k]`: their targets.

    Raises:
        ValueError: if there is not exactly one row.
    """
    if len(rows) != 1:
        raise ValueError(f"a batch is one packed row, got {len(rows)}: use batch_rows for more of them per step")
    (row,) = rows
    places = [place for place, target in enumerate(row.targets) if target != IGNORE]
    targets = torch.tensor([[row.targets[place] for place in places]])
    return {
        "input_ids": torch.tensor([row.ids]),
        "position_ids": positions([row.layout]),
        "attention_mask": attention_mask(row.layout, attention, device),
        "logits_to_keep": torch.tensor(places),
        "labels": targets,
        "shift_labels": targets,
        "use_cache": False,
    }


def attention_mask(layout: Layout, attention: str, device: str | torch.device) -> Any:
    """Visibility of a row as `attention` takes it; see `collate`."""
    if attention == "flex_attention":
        return block_mask(layout, device=device)
    dense = dense_mask([layout])
    return additive(dense) if attention == "eager" else dense
