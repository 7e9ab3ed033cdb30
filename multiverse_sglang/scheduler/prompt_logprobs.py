"""Input logprobs of prompts that hold blocks: asked for run by run, put together for the client.

SGLang scores every token of a run by the one before it. What the last token of a run predicts, the first token of the
branches behind it, is asked for by id at the token that SGLang samples there, and nobody wants: its run samples from
the model's own logits, whatever the client's sampling parameters are.
"""

from __future__ import annotations

import copy

from multiverse.decoding.prompt_scores import PromptScores, Target
from multiverse_sglang.host import Logprobs, Request
from multiverse_sglang.scheduler.tree import Member, RequestTree, Row

NEUTRAL = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 1,
    "min_p": 0.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "repetition_penalty": 1.0,
    "logit_bias": None,
}
"""Sampling parameters that leave logprobs as the model has them."""


def scores_for(tree: RequestTree) -> PromptScores[Row] | None:
    """What collects the scores that the client of `tree` asked for; `None` if SGLang does that, or there are none."""
    client, prompt = tree.client, tree.controller.prompt
    asked = client.return_logprob and 0 <= client.logprob_start_len < len(prompt.ids)
    if not asked or not tree.structured or tree.program is not None:
        return None
    return PromptScores(prompt, client.logprob_start_len)


def ask(member: Member, run: Request) -> None:
    """Let a run that was just made report what `member` still misses of the prompt's scores."""
    scores, length = member.tree.scores, len(member.tokens)
    run.logprob_start_len = length
    targets = [] if scores is None else scores.targets(member.strand.key, member.computed, length)
    if not targets:
        return
    run.logprob_start_len = targets[0].at
    if member.draining:
        ids = [target.token for target in targets if target.at == length - 1]
        run.logprob.token_ids_logprob = [*(run.logprob.token_ids_logprob or ()), *ids] or None
        run.custom_logit_processor = None
        run.sampling_params = copy.copy(run.sampling_params)
        for name, value in NEUTRAL.items():
            setattr(run.sampling_params, name, value)


def record_scores(member: Member) -> None:
    """Keep what the run of `member` reported of its prompt."""
    scores, run = member.tree.scores, member.run
    if scores is None or run is None or run.logprob_start_len >= len(run.origin_input_ids):
        return
    for target in scores.targets(member.strand.key, run.logprob_start_len, len(run.origin_input_ids)):
        scores.record(target.place, _row(member.tree.client.logprob, run, target))
    run.logprob_start_len = len(run.origin_input_ids)  # that was all


def _row(asked: Logprobs, run: Request, target: Target) -> Row:
    """The row of `target`, cut to what the client asked for."""
    found, at = run.logprob, target.at - run.logprob_start_len + 1
    last = target.at == len(run.origin_input_ids) - 1
    kind, at = ("output", -1) if last else ("input", at)

    def entries(name: str) -> tuple[list[float], list[int]]:
        return getattr(found, f"{kind}_{name}_logprobs_val")[at], getattr(found, f"{kind}_{name}_logprobs_idx")[at]

    top = entries("top") if asked.top_logprobs_num > 0 else None
    values, ids = entries("token_ids") if found.token_ids_logprob is not None else ([], [])
    value = values[list(ids).index(target.token)] if last else found.input_token_logprobs_val[at]
    wanted = asked.token_ids_logprob
    return Row(value, top, None if wanted is None else (list(values[: len(wanted)]), list(wanted)))


def deliver(tree: RequestTree) -> None:
    """Hand all scores of the prompt to what SGLang sends to the client, once they are there."""
    assert tree.scores is not None
    rows, found, start = tree.scores.rows(), tree.client.logprob, tree.client.logprob_start_len
    tree.scores = None
    found.input_token_logprobs_val = [None if row is None else row.value for row in rows]
    found.input_token_logprobs_idx = list(tree.controller.prompt.ids[start:])
    if found.top_logprobs_num > 0:
        found.input_top_logprobs_val = [row and row.top and row.top[0] for row in rows]
        found.input_top_logprobs_idx = [row and row.top and row.top[1] for row in rows]
    if found.token_ids_logprob is not None:
        found.input_token_ids_logprobs_val = [row and row.chosen and row.chosen[0] for row in rows]
        found.input_token_ids_logprobs_idx = [row and row.chosen and row.chosen[1] for row in rows]
