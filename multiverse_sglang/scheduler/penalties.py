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
    BatchedMinNewTokensPenalizer,
    BatchedPresencePenalizer,
    BatchedRepetitionPenalizer,
)

from multiverse_sglang.host import Batch, Request
from multiverse_sglang.scheduler.tree import Member, member_of


def generated_before(member: Member | None, said: Sequence[int], late: bool) -> Sequence[int]:
    """The tokens of the sequence of a run that were generated before it entered the batch, in others or in itself.

    Args:
        member: what the run is computed for; `None`, or one that SGLang computes by itself, has none.
        said: what the run has sampled, if it was held. SGLang counts the last one itself, in the next decode step.
        late: leave out the token before that, which SGLang counts itself, a step later.
    """
    if member is None or not member.tree.is_forked:
        return ()
    tokens = [*member.tokens[len(member.tree.controller.prompt.ids) :], *said]
    return tokens[: max(0, len(tokens) - bool(said) - late)]


def complete_penalties(orchestrator: Any, batch: Batch) -> None:
    """Let penalties count what the strands of a new `batch` have generated in runs before, or before they were held."""
    late = batch.enable_overlap
    rows = [(member_of(request), request.output_ids) for request in batch.reqs]
    complete(orchestrator, [generated_before(member, said, late) for member, said in rows])
    lengths = orchestrator.penalizers[BatchedMinNewTokensPenalizer]
    if lengths.is_prepared():
        for row, (_, said) in enumerate(rows):
            lengths.len_output_tokens[row] = max(0, len(said) - 1)


def step_back(batch: Batch, back: list[tuple[Request, int]]) -> None:
    """Before SGLang counts the last tokens of the rows of `batch`, which decode next: put what was held until now a
    token behind, as it would be had it gone on, with its last token under way. Those tokens are put into `back`."""
    for request in batch.reqs:
        member = member_of(request)
        if member is not None and member.resumes and member.run is request:
            member.resumes = False
            back.append((request, request.output_ids.pop()))


def step_on(back: list[tuple[Request, int]]) -> None:
    """Undo that."""
    for request, token in back:
        request.output_ids.append(token)


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
