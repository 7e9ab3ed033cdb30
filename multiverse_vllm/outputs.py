"""Logprobs of a tree, put into document order."""

from __future__ import annotations

from typing import Any

import numpy as np
from vllm.v1.outputs import LogprobsLists

from multiverse_vllm.tree import Member, RequestTree


def record_rows(member: Member, output: Any) -> None:
    """Keep the logprobs that vLLM reported for the token just sampled for `member`."""
    rows = output.new_logprobs
    if rows is not None and output.new_token_ids and member.sampled is not None:
        known = member.tree.rows.setdefault(member.strand.key, {})
        known[member.sampled] = (rows.logprob_token_ids, rows.logprobs, rows.sampled_token_ranks)


def document_logprobs(tree: RequestTree, tokens: list[int]) -> LogprobsLists | None:
    """Logprobs of the last `len(tokens)` tokens that the stream has shown, if the client asked for any.

    A token that the engine wrote has logprob 0: it was not left to chance.
    """
    wanted = tree.root.request.sampling_params.num_logprobs
    if wanted is None or not tokens:
        return None
    shown = _shown(tree)[-len(tokens) :]
    width = wanted + 1
    ids, values = np.zeros((len(tokens), width), np.int64), np.full((len(tokens), width), -np.inf, np.float32)
    ranks: Any = np.ones(len(tokens), np.int64)
    for i, (token, row) in enumerate(zip(tokens, shown, strict=True)):
        if row is None:
            ids[i], values[i] = token, 0.0
        else:
            ids[i], values[i], ranks[i] = row[0][0], row[1][0], row[2][0]
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
        found[strand.key] = [float(rows[at][1][0][0]) if at in rows else None for at in range(len(strand.tokens))]
    return found
