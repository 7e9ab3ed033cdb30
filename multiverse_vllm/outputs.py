"""Logprobs of a tree, put into document order."""

from __future__ import annotations

from typing import Any

import numpy as np
from vllm.v1.outputs import LogprobsLists

from multiverse_vllm.tree import Member, RequestTree

EVERYTHING = -1
"""vLLM's number of logprobs for the whole vocabulary."""


def record_rows(member: Member, output: Any) -> None:
    """Keep the logprobs that vLLM reported for the token just sampled for `member`.

    vLLM's rows, views of the step's matrix, are as wide as the batch's widest request wants them (or as its
    `logprob_token_ids` are many): what this request asked for comes first, and only that is kept.
    """
    rows = output.new_logprobs
    if rows is None or not output.new_token_ids or member.sampled is None:
        return
    wanted = member.tree.sampling.num_logprobs
    width = None if wanted == EVERYTHING else wanted + 1
    known = member.tree.rows.setdefault(member.strand.key, {})
    known[member.sampled] = (
        rows.logprob_token_ids[0, :width].copy(),
        rows.logprobs[0, :width].copy(),
        int(rows.sampled_token_ranks[0]),
    )


def document_logprobs(tree: RequestTree, tokens: list[int]) -> LogprobsLists | None:
    """Logprobs of the last `len(tokens)` tokens that the stream has shown, if the client asked for any.

    Returns:
        ids and values `[len(tokens), width]`, the token itself first, and ranks. A row with fewer entries repeats its
        first. A token that the engine wrote has logprob 0: it was not left to chance.
    """
    wanted = tree.sampling.num_logprobs
    if wanted is None or not tokens:
        return None
    shown = _shown(tree)[-len(tokens) :]
    width = max((len(row[0]) for row in shown if row), default=1) if wanted == EVERYTHING else wanted + 1
    ids, values = np.zeros((len(tokens), width), np.int64), np.zeros((len(tokens), width), np.float32)
    ranks: Any = np.ones(len(tokens), np.int64)
    for i, (token, row) in enumerate(zip(tokens, shown, strict=True)):
        if row is None:
            ids[i] = token
        else:
            entries = len(row[0])
            ids[i], values[i], ranks[i] = row[0][0], row[1][0], row[2]
            ids[i, :entries], values[i, :entries] = row[0], row[1]
    return LogprobsLists(ids, values, ranks)


def _shown(tree: RequestTree) -> list[Any]:
    """A row (or None) for every token that the stream has shown, in document order."""
    rows: list[Any] = []
    limit = tree.stream.shown
    for strand, start, end in tree.controller.root.spans():
        if len(rows) >= limit:
            break
        known = tree.rows.get(strand.key, {})
        rows += [known.get(offset) for offset in range(start, end)]
    return rows[:limit]


def strand_logprobs(tree: RequestTree) -> dict[tuple[int, ...], list[float | None]] | None:
    """By strand key, the logprob of every token of it, if the client asked; `None` for those that the engine wrote."""
    if tree.sampling.num_logprobs is None:
        return None
    found: dict[tuple[int, ...], list[float | None]] = {}
    for strand in tree.controller.root.walk():
        rows = tree.rows.get(strand.key, {})
        found[strand.key] = [float(rows[at][1][0]) if at in rows else None for at in range(len(strand.tokens))]
    return found
