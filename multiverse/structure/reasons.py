"""Why a block that could fork was not forked (SEMANTICS sections 4 and 5)."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a block was not forked. It then goes on sequentially, with ordinary positions."""

    NO_OUTLINE = "no_outline"
    SINGLE_OUTLINE = "single_outline"
    STRAY_GOAL_CLOSE = "stray_goal_close"
    TOO_WIDE = "too_wide"
    TOO_DEEP = "too_deep"
    TOKEN_BUDGET = "token_budget"
    CONTEXT_LENGTH = "context_length"
    KV_CAPACITY = "kv_capacity"
