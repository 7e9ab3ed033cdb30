"""Attention over KV slots that several rows have in common, each of them read once.

Rows that were forked from one sequence begin with the same slots. So a step is taken apart into passes: one of all
queries of such a group over what its rows share, and one of each row over its own. Attention is a sum over keys, so the
results of a query's passes are merged by their log-sum-exp. `plan` knows lengths and who shares what, no host and no
kernel; `attend` is the reference, right and slow; `multiverse.attention.batched` is what runs on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch


class Group(NamedTuple):
    """Rows of a batch whose first slots are the same.

    Attributes:
        rows: indices into the batch.
        length: how many slots they share.
    """

    rows: tuple[int, ...]
    length: int


class Pass(NamedTuple):
    """Queries that attend to the same range of slots.

    Attributes:
        queries: indices of queries; in a decode step, where each row has one, those of rows.
        row: whose slots.
        start: the first of them, by its index in the row.
        stop: the first that is not read.
        causal: whether the queries are the last tokens of the range and see no token behind themselves.
    """

    queries: Sequence[int]
    row: int
    start: int
    stop: int
    causal: bool = False

    @property
    def slots(self) -> int:
        """How many slots it reads."""
        return self.stop - self.start


def plan(lengths: Sequence[int], groups: Iterable[Group] = (), least: int = 1) -> list[Pass]:
    """The passes of a decode step, in which each row has one query that sees all of its slots.

    Args:
        lengths: slots of each row.
        groups: who shares what. Of two groups that have a row in common one contains the other.
        least: reads that a group has to save to get a pass of its own; that costs something too.

    Returns:
        passes that each row's slots are read by exactly once, those of groups first, outer ones before inner ones.
    """
    read = [0] * len(lengths)
    passes = []
    for rows, length in sorted(groups, key=lambda group: (group.length, -len(group.rows))):
        start = read[rows[0]]
        assert all(read[row] == start and lengths[row] >= length for row in rows), "groups overlap in part"
        if (len(rows) - 1) * (length - start) < least:
            continue
        passes.append(Pass(rows, rows[0], start, length))
        for row in rows:
            read[row] = length
    own = [Pass((row,), row, read[row], length) for row, length in enumerate(lengths) if length > read[row]]
    return passes + own


def kv_tokens(passes: Iterable[Pass]) -> int:
    """Slots that are read: of each group once, never once per row."""
    return sum(part.slots for part in passes)


def merge(
    one: torch.Tensor, one_lse: torch.Tensor, other: torch.Tensor, other_lse: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over two disjoint sets of keys from attention over each.

    Args:
        one, other: `[queries, heads, width]`.
        one_lse, other_lse: log of the sum of their exponentiated scores, `[queries, heads]`; minus infinity if a set is
            empty, which only one of the two may be.

    Returns:
        the same of both sets together.
    """
    both = torch.logaddexp(one_lse, other_lse)
    weight, other_weight = (one_lse - both).exp()[..., None], (other_lse - both).exp()[..., None]
    return (one * weight + other * other_weight).to(one.dtype), both


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    slots: Sequence[torch.Tensor],
    passes: Iterable[Pass],
    scale: float,
) -> torch.Tensor:
    """The reference: passes one after the other, in the dtype of what is given.

    Args:
        query: `[queries, heads, width]`.
        key, value: of all slots, `[slots, kv heads, width]`; each KV head serves as many consecutive heads.
        slots: of each row, int64.
        scale: of the scores.

    Returns:
        `[queries, heads, width]`; zeros for a query that no pass has.
    """
    output, lse = torch.zeros_like(query), query.new_full(query.shape[:2], -torch.inf)
    share = query.shape[1] // key.shape[1]
    for part in passes:
        at, seen = list(part.queries), slots[part.row][part.start : part.stop]
        keys, values = (kv[seen].repeat_interleave(share, dim=1) for kv in (key, value))
        scores = torch.einsum("qhd,khd->qhk", query[at], keys) * scale
        if part.causal:
            hidden = torch.ones(len(at), len(seen), dtype=torch.bool).triu(len(seen) - len(at) + 1)
            scores = scores.masked_fill(hidden[:, None], -torch.inf)
        found = torch.einsum("qhk,khd->qhd", scores.softmax(-1), values)
        output[at], lse[at] = merge(output[at], lse[at], found, scores.logsumexp(-1))
    return output
