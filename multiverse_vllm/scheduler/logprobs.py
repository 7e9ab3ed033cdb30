"""Logprobs of a tree's sampled tokens: from vLLM's rows, per request and step, to one answer in document order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.outputs import LogprobsLists

from multiverse.decoding.stream import Span, tokens_of
from multiverse_vllm.scheduler.tree import Member, RequestTree, Row

EVERYTHING = -1
"""vLLM's number of logprobs for the whole vocabulary."""


def record_rows(member: Member, output: EngineCoreOutput) -> None:
    """Keep the logprobs that vLLM reported for what was just sampled for `member`, a row per token.

    vLLM's rows, views of the step's matrix, are as wide as the batch's widest request wants them (or as its
    `logprob_token_ids` are many): what this request asked for comes first, and only that is kept, as a copy. While a
    request has not forked, vLLM shows them by itself.
    """
    rows, kept, tree = output.new_logprobs, member.tree.rows, member.tree
    if rows is None or kept is None or not output.new_token_ids or member.sampled is None:
        return
    forked = bool(tree.controller.root.forks)
    if forked or kept.keep_values:
        for at in range(len(output.new_token_ids)):
            row = _row(rows, at, tree.sampling.num_logprobs) if forked else None
            kept.record(member.strand, member.sampled + at, float(rows.logprobs[at, 0]), row)


def _row(rows: LogprobsLists, at: int, wanted: int) -> Row:
    width = None if wanted == EVERYTHING else wanted + 1
    ids, values = rows.logprob_token_ids[at, :width].copy(), rows.logprobs[at, :width].copy()
    return ids, values, int(rows.sampled_token_ranks[at])


def document_logprobs(tree: RequestTree, spans: Sequence[Span]) -> LogprobsLists | None:
    """Logprobs of the tokens of `spans`, which are shown now, if the client asked for any.

    Returns:
        ids and values `[tokens, width]`, the token itself first, and ranks. A row with fewer entries repeats its first.
        A token that the engine wrote has logprob 0: it was not left to chance.
    """
    if tree.rows is None or not spans:
        return None
    tokens, shown, wanted = tokens_of(spans), tree.rows.take(spans), tree.sampling.num_logprobs
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
