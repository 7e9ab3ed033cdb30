"""Caps of a request, what it has used of them, and why a strand ended (SEMANTICS sections 4 and 5)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

from multiverse.errors import LimitError, shown

UNBOUNDED = 1 << 62
"""A number of tokens, or a position, that no sequence reaches."""
LARGEST = 2**31 - 1
"""The largest number that a request may name: more than any context has, and small enough to be sent anywhere."""


class FinishReason(StrEnum):
    """Why a strand (the request itself or one branch) ended."""

    PATH_CLOSE = "path_close"
    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True)
class Limits:
    """What a request may use; `None` means no limit of its own.

    Attributes:
        max_tokens: generated tokens over all branches, injected ones included. Exact.
        max_critical_path: positions from the first generated token to the last. Exact.
        context_length: tokens that prompt and completion may occupy together, in one spliced sequence.
        max_branches: outlines of one block; a wider block is not forked.
        max_depth: blocks around a branch, its own included; a deeper block is not forked.
        max_parallel: branches that may run at once; the others wait their turn.

    Raises:
        LimitError: naming the field, its value and what is allowed.
    """

    max_tokens: int | None = None
    max_critical_path: int | None = None
    context_length: int | None = None
    max_branches: int = 64
    max_depth: int = 4
    max_parallel: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name not in ("max_branches", "max_depth"):
                continue
            least = 0 if field.name == "max_depth" else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise LimitError(f"{field.name} must be an integer >= {least}, got {shown(value)}")

    def tokens_for(self, prompt_length: int) -> int | None:
        """How many tokens may be generated after a prompt of `prompt_length` tokens."""
        room = None if self.context_length is None else max(0, self.context_length - prompt_length)
        bounds = [bound for bound in (self.max_tokens, room) if bound is not None]
        return min(bounds, default=None)

    def bound_by_context(self, prompt_length: int) -> bool:
        """Whether after such a prompt the context is full before `max_tokens` are generated."""
        if self.context_length is None:
            return False
        return self.max_tokens is None or prompt_length + self.max_tokens >= self.context_length


class Ledger:
    """Counts the tokens of one request, and keeps back those that the engine will have to write itself.

    Invariant: `used + reserved <= limit`. What is reserved pays for path headers, closing tags and conclusion
    headers, so that a request which runs out of tokens still ends with every branch closed.
    """

    __slots__ = ("injected", "limit", "reserved", "used")

    def __init__(self, limit: int | None) -> None:
        self.limit = UNBOUNDED if limit is None else limit
        self.used = 0
        self.injected = 0
        self.reserved = 0

    @property
    def left(self) -> int:
        """How many tokens may yet be sampled."""
        return self.limit - self.used - self.reserved

    @property
    def exhausted(self) -> bool:
        """Whether no further token may be sampled."""
        return self.left <= 0

    def close(self) -> None:
        """Let the next token be the last that may be sampled."""
        self.limit = min(self.limit, self.used + self.reserved + 1)

    def affords(self, tokens: int) -> bool:
        """Whether `tokens` more can be reserved."""
        return self.used + self.reserved + tokens <= self.limit

    def reserve(self, tokens: int) -> None:
        """Keep `tokens` back. Asserts that they are there: ask `affords` first."""
        assert self.affords(tokens), (tokens, self.used, self.reserved, self.limit)
        self.reserved += tokens

    def release(self, tokens: int) -> None:
        """Give reserved `tokens` back."""
        assert 0 <= tokens <= self.reserved, (tokens, self.reserved)
        self.reserved -= tokens

    def inject(self, tokens: int) -> None:
        """Spend `tokens` that were reserved on tokens the engine writes."""
        self.release(tokens)
        self.used += tokens
        self.injected += tokens
