"""`prompt_logprobs` of prompts that hold blocks: scores of the tokens that a step's plan names.

Sent where vLLM's own prompt logprobs travel (`channels.SCORES`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from vllm.v1.outputs import LogprobsTensors

from multiverse_vllm.plan import Scoring

ROWS_AT_ONCE = 1024
"""Of how many tokens there are logits over the vocabulary at the same time."""


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
