"""Puts the wrappers of the hook table in place, in every process that SGLang starts."""

from __future__ import annotations

import functools

from multiverse_sglang.hooks import check, table
from multiverse_sglang.registry import apply, require


@functools.cache
def install() -> None:
    """Wrap what the table says. Idempotent.

    Raises:
        UnsupportedHostError: with everything that does not match, before anything was changed; or with every wrapper
            that SGLang failed to apply.
    """
    require(check())
    from multiverse_sglang.attention import offer
    from multiverse_sglang.wrappers import WRAPPERS

    apply(table(), WRAPPERS)
    offer()
