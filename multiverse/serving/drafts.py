"""How many tokens are drafted for a strand: the fewer, the more rows a step has (speculative decoding, SEMANTICS 7).

A host that drafts computes the drafted tokens of every row whether they are accepted or not. With few rows that is
nearly free, with many it costs what as many rows cost; and each branch is a row.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from multiverse.errors import OptionError, shown

MOST, LONGEST = 1024, 400
"""Tokens, more than any host drafts, and characters of a table."""
NEARLY = 0.98
"""Of the most tokens per second: who drafts less for that drafts less."""


@dataclass(frozen=True)
class DraftLengths:
    """A table: from `rows[i]` rows in a step on, at most `tokens[i]` drafted tokens for each of them."""

    rows: tuple[int, ...]
    tokens: tuple[int, ...]

    def at(self, rows: int) -> int:
        """How many at most, in a step of so many rows."""
        return self.tokens[max(0, bisect_right(self.rows, rows) - 1)]

    def __str__(self) -> str:
        return ",".join(f"{rows}:{tokens}" for rows, tokens in zip(self.rows, self.tokens, strict=True))


def best_draft_lengths(rates: Mapping[int, Mapping[int, float]]) -> DraftLengths:
    """The table that gives the most tokens per second: the shortest drafts by which that is nearly the most.

    Args:
        rates: by rows in a step (at least one), and then by draft length: tokens per second. What holds for the least
            number of rows holds for fewer, too.
    """
    best = [
        (rows, min(tokens for tokens, rate in found.items() if rate >= NEARLY * max(found.values())))
        for rows, found in sorted(rates.items())
    ]
    kept = [(1, best[0][1])]
    kept += [(rows, tokens) for (_, before), (rows, tokens) in pairwise(best) if tokens != before]
    return DraftLengths(*zip(*kept, strict=True))


def read_draft_lengths(given: object) -> DraftLengths:
    """Read `3`, or `1:4,8:2,32:0`: from one row on four, from eight on two, from 32 on none.

    Raises:
        OptionError: naming what is wrong.
    """
    wrong = OptionError(f"drafts must be a number of tokens, or a table like '1:4,8:2,32:0', got {shown(given)}")
    if isinstance(given, bool) or not isinstance(given, int | str) or (isinstance(given, str) and len(given) > LONGEST):
        raise wrong
    try:
        text = f"1:{int(given)}" if isinstance(given, int) or given.isdecimal() else given
        pairs = [pair.split(":") for pair in text.split(",")]
        rows, tokens = zip(*((int(first), int(second)) for first, second in pairs), strict=True)
    except ValueError:
        raise wrong from None
    if rows[0] != 1 or list(rows) != sorted(set(rows)) or not all(0 <= most <= MOST for most in tokens):
        allowed = f"numbers of rows that rise from 1, and 0 to {MOST} tokens"
        raise OptionError(f"drafts must have {allowed}, got {shown(given)}")
    return DraftLengths(rows, tokens)
