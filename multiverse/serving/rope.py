"""Kinds of RoPE. A splice keeps keys that were computed elsewhere, so a key may depend on its token and position alone.

Under `longrope`, and `dynamic` past its maximum, transformers computes the keys of a row by the longest row of the
batch (5.24: differences up to 4); a host may compute them per position all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

EXACT = frozenset({"default", "linear", "yarn", "llama3"})
"""Kinds whose keys were compared and are those of the position alone, everywhere."""


def unsupported_rope(config: Any, per_position: Collection[str] = ()) -> list[str]:
    """Kinds of RoPE in a model's configuration under which a key may depend on company or length, sorted.

    Args:
        config: a Hugging Face configuration of a text model, of transformers 4 or 5.
        per_position: further kinds whose keys this host computes from the position alone.
    """
    return sorted(rope_kinds(config) - EXACT - set(per_position))


def refusals_of_rope(config: Any, per_position: Collection[str] = ()) -> list[str]:
    """The same, each as a reason to refuse a model."""
    exact = ", ".join(sorted(EXACT | set(per_position)))
    return [
        f"RoPE of the kind {kind!r}, whose keys may depend on more than token and position (known not to: {exact})"
        for kind in unsupported_rope(config, per_position)
    ]


def rope_kinds(config: Any) -> set[str]:
    """The kinds that `config` names, of all layers; empty without RoPE parameters."""
    given = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    each = [value for value in given.values() if isinstance(value, Mapping)] or [given]
    return {kind for parameters in each if (kind := parameters.get("rope_type") or parameters.get("type"))}
