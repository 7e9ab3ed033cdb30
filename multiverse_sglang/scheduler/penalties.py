"""Penalties count what a token sees of what was generated, also if another run of SGLang generated it.

SGLang counts the tokens that a request itself has sampled; a run begins with none. So the counts of a new batch are
completed by what the strands of its runs had generated before. Under the overlap scheduler SGLang counts every token
one step late, and so does this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sglang.srt.sampling.penaltylib import (
    BatchedFrequencyPenalizer,
    BatchedPresencePenalizer,
    BatchedRepetitionPenalizer,
)

from multiverse_sglang.host import Batch
from multiverse_sglang.scheduler.tree import Member, member_of


def generated_before(member: Member | None, late: bool) -> Sequence[int]:
    """The tokens of the sequence of a run that were generated in others.

    Args:
        member: what the run is computed for; `None`, or one that SGLang computes by itself, has none.
        late: leave out the last token of the sequence, which SGLang counts itself, a step later.
    """
    if member is None or not member.tree.is_forked:
        return ()
    tokens = member.tokens[len(member.tree.controller.prompt.ids) :]
    return tokens[:-1] if late else tokens


def complete_penalties(orchestrator: Any, batch: Batch) -> None:
    """Let penalties count what the strands of a new `batch` have generated in runs before."""
    members = [member_of(request) for request in batch.reqs]
    complete(orchestrator, [generated_before(member, batch.enable_overlap) for member in members])


def complete(orchestrator: Any, rows: Sequence[Sequence[int]]) -> None:
    """Add the tokens of `rows`, one row per request of the batch, to what SGLang's penalizers have counted."""
    for row, tokens in enumerate(rows):
        if not tokens:
            continue
        ids = torch.tensor(tokens, dtype=torch.int64, device=orchestrator.device)
        for kind, penalizer in orchestrator.penalizers.items():
            if not penalizer.is_prepared():
                continue
            if kind is BatchedFrequencyPenalizer:
                penalty = penalizer.frequency_penalties[row]
                penalizer.cumulated_frequency_penalties[row].scatter_add_(0, ids, penalty.expand(len(ids)))
            elif kind is BatchedPresencePenalizer:
                penalizer.cumulated_presence_penalties[row, ids] = penalizer.presence_penalties[row]
            elif kind is BatchedRepetitionPenalizer:
                penalizer.cumulated_repetition_penalties[row, ids] = penalizer.repetition_penalties[row]
