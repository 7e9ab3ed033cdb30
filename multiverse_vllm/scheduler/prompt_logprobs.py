"""`prompt_logprobs` of prompts that hold blocks: the scheduler names targets per step, the workers score them.

vLLM scores every token of a prompt by the one before it in the same request. Here the predecessor may lie in another
strand, that is in another of vLLM's requests. So the step's plan says what to score (`multiverse.decoding`), the
workers answer where vLLM's own prompt logprobs travel, and the scheduler takes it out again before vLLM looks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from vllm.v1.outputs import LogprobsTensors

from multiverse.decoding.prompt_scores import Target
from multiverse_vllm.scheduler.tree import Member, RequestTree, Row

ROWS_AT_ONCE = 1024
"""Of how many tokens there are logits over the vocabulary at the same time."""


@dataclass(frozen=True)
class Scoring:
    """What to score of one request in one step.

    Attributes:
        root: id of the request that the client knows; that of a branch may be gone when its step's output comes.
        top: logprobs of how many of the likeliest tokens; -1 for the whole vocabulary.
        start: index in the request's sequence of the first token that is scheduled.
        targets: what is scored.
    """

    root: str
    top: int
    start: int
    targets: list[Target]


def scoring(member: Member, scheduled: int) -> Scoring | None:
    """What the last `scheduled` computed tokens of `member` predict of the prompt, if the client wants to know."""
    tree, end = member.tree, member.request.num_computed_tokens
    if tree.scores is None:
        return None
    targets = tree.scores.targets(member.strand.key, end - scheduled, end)
    root, top = tree.root.request.request_id, tree.sampling.prompt_logprobs
    return Scoring(root, top, end - scheduled, targets) if targets else None


def record_scores(tree: RequestTree, asked: Scoring, tensors: Any) -> None:
    """Keep what the workers scored for a request of `tree`: one row of `tensors` per target."""
    if tree.scores is None:
        return  # it has them all, from before a replay
    ids, values, ranks = (tensor.numpy() for tensor in tensors[:3])
    for row, target in enumerate(asked.targets):
        tree.scores.record(target.place, (ids[row].copy(), values[row].copy(), int(ranks[row])))


def prompt_tensors(tree: RequestTree) -> LogprobsTensors:
    """All rows of a prompt of `n` tokens for vLLM's front end: `[n - 1, width]`, NaN where nothing predicts a token."""
    assert tree.scores is not None
    rows: list[Row | None] = tree.scores.rows()[1:]
    width = max((len(row[0]) for row in rows if row is not None), default=1)
    ids, values = torch.zeros((len(rows), width), dtype=torch.int64), torch.full((len(rows), width), torch.nan)
    ranks = torch.zeros(len(rows), dtype=torch.int64)
    for i, row in enumerate(rows):
        if row is not None:
            ids[i], values[i], ranks[i] = torch.from_numpy(row[0]), torch.from_numpy(row[1]), row[2]
    return LogprobsTensors(ids, values, ranks)


def append_prompt_tensors(append: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Around the front end's: a token that nothing predicts has no entry, as the first one of any prompt."""

    @functools.wraps(append)
    def wrapped(self: Any, tensors: LogprobsTensors) -> None:
        none = tensors.logprobs[:, :1].isnan().any(1)
        at = 0
        for place in [*none.nonzero()[:, 0].tolist(), len(none)]:
            if place > at:
                append(self, LogprobsTensors(*(tensor[at:place] for tensor in tensors[:3])))
            if place < len(none):
                self.prompt_logprobs.append(None)
            at = place + 1

    return wrapped


# --- in a worker -----------------------------------------------------------------------------------------------------


def score(
    runner: Any,
    wanted: Mapping[str, Scoring],
    hidden_states: torch.Tensor,
    requests: Sequence[str],
    starts: np.ndarray,
) -> dict[str, LogprobsTensors]:
    """Score what the step's plan wants.

    Args:
        runner: a model runner of either kind.
        hidden_states: `[tokens, hidden]`, of the whole batch.
        requests: ids in batch order.
        starts: where the tokens of each request begin, `[len(requests)]` or longer.

    Returns:
        by request id, on the CPU: ids and scores `[targets, top + 1]`, the target first, and the targets' ranks.
    """
    rows, found = {request: int(starts[i]) for i, request in enumerate(requests)}, {}
    logits_wanted = runner.model_config.logprobs_mode in ("raw_logits", "processed_logits")
    for request, asked in wanted.items():
        first = rows[request] - asked.start
        chunks = []
        for at in range(0, len(asked.targets), ROWS_AT_ONCE):
            targets = asked.targets[at : at + ROWS_AT_ONCE]
            logits = runner.model.compute_logits(hidden_states[[first + target.at for target in targets]])
            chunks.append(_gather(logits.float(), asked.top, [target.token for target in targets], logits_wanted))
        found[request] = LogprobsTensors(*(torch.cat(part).cpu() for part in zip(*chunks, strict=True)))
    return found


def _gather(logits: torch.Tensor, top: int, targets: list[int], raw: bool) -> tuple[torch.Tensor, ...]:
    scores = logits if raw else logits.log_softmax(-1)
    ids = torch.tensor(targets, device=logits.device)[:, None]
    own = scores.gather(1, ids)
    values, best = scores.topk(scores.shape[1] if top == -1 else top)
    return torch.cat((ids, best), 1), torch.cat((own, values), 1), (scores >= own).sum(1)
