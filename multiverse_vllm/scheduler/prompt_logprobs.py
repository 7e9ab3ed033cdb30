"""`prompt_logprobs` of prompts that hold blocks: the scheduler names targets per step, the workers score them.

vLLM scores every token of a prompt by the one before it in the same request. Here the predecessor may lie in another
strand, that is in another of vLLM's requests. So the step's plan says what to score (`multiverse.decoding`), the
workers answer where vLLM's own prompt logprobs travel, and the scheduler takes it out again before vLLM looks.
"""

from __future__ import annotations

import torch
from vllm.v1.outputs import LogprobsTensors

from multiverse_vllm.plan import Scoring
from multiverse_vllm.scheduler.tree import Member, RequestTree, Row


def scoring(member: Member, start: int, end: int) -> Scoring | None:
    """What the tokens of `member` from index `start` to `end` predict of the prompt, if the client wants to know."""
    tree = member.tree
    if tree.scores is None:
        return None
    targets = tree.scores.targets(member.strand.key, start, end)
    root, top = tree.root.request.request_id, tree.sampling.prompt_logprobs
    return Scoring(root, top, start, targets) if targets else None


def record_scores(tree: RequestTree, asked: Scoring, tensors: LogprobsTensors) -> None:
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
