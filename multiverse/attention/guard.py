"""Against the silent misreading of structured positions.

Without an explicit mask transformers takes any jump in `position_ids` for the start of another packed document, and
attention is computed for something else without a word. A guarded model refuses such a forward.
"""

from __future__ import annotations

from typing import Any

import torch

from multiverse.errors import UnsupportedModelError


def guard(model: Any) -> Any:
    """Make `model` refuse structured positions without a mask that says what they mean.

    Args:
        model: a Hugging Face causal LM; changed in place by a forward hook.

    Returns:
        a handle whose `remove()` takes the guard off.

    Raises:
        UnsupportedModelError: later, from the forward, if `position_ids` are anything but a plain range and
            `attention_mask` is neither 4-D nor a `BlockMask`, or if the attention implementation ignores such masks.
    """
    decoder = model.base_model  # PEFT calls the forward of a whole model past its hooks, but not that of its decoder
    return decoder.register_forward_pre_hook(_check, with_kwargs=True)


def _check(model: Any, _arguments: tuple[Any, ...], inputs: dict[str, Any]) -> None:
    positions, mask = inputs.get("position_ids"), inputs.get("attention_mask")
    if positions is None or _plain(positions):
        return
    if mask is None or len(mask.shape) != 4:
        found = "none" if mask is None else f"one of shape {tuple(mask.shape)}"
        raise UnsupportedModelError(
            f"position_ids are structured but the mask is {found}: transformers would take them for packed documents. "
            "Pass multiverse.attention.dense_mask or block_mask of the same layout."
        )
    implementation = model.config.get_text_config()._attn_implementation
    wanted = _implementations(mask)
    if implementation not in wanted:
        kind = f"a mask of {mask.dtype}" if isinstance(mask, torch.Tensor) else "a BlockMask"
        raise UnsupportedModelError(
            f"attn_implementation {implementation!r} misreads {kind}: use {' or '.join(wanted)}"
        )


def _implementations(mask: Any) -> tuple[str, ...]:
    """Those that understand `mask`. `eager` adds it to the scores, so it has to be an additive one."""
    if not isinstance(mask, torch.Tensor):
        return ("flex_attention",)
    return ("sdpa", "eager") if mask.is_floating_point() else ("sdpa",)


def _plain(positions: torch.Tensor) -> bool:
    return bool((positions.diff(dim=-1) == 1).all())
