"""Functions of SGLang that are there and mean something else, as a release might bring them without a word."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any
from unittest.mock import patch

FAULTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "nothing is found": (
        "multiverse_sglang.scheduler.prefix_cache:match_kv_cache",
        lambda match: lambda *args, **_: match(*args, max_prefix_len=0),
    ),
    "tokens stay where they are": (
        "sglang.srt.mem_cache.memory_pool:MHATokenToKVPool.move_kv_cache",
        lambda _: lambda *_: None,
    ),
    "what is unlocked stays locked": (
        "sglang.srt.mem_cache.unified_radix_cache:UnifiedRadixCache.unlock",
        lambda _: lambda *_: None,
    ),
}
"""By what they do: `module:name`, and what takes the place of that."""


def planted(fault: str) -> AbstractContextManager[Any]:
    """SGLang with one of `FAULTS`, for a while."""
    place, change = FAULTS[fault]
    module, _, path = place.partition(":")
    *outer, name = path.split(".")
    owner: Any = import_module(module)
    for part in outer:
        owner = getattr(owner, part)
    return patch.object(owner, name, change(getattr(owner, name)))
