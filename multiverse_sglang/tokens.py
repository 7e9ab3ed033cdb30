"""What happens to a token between SGLang's sampler and its rules for the end of a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sglang.srt.managers.schedule_batch import FINISH_ABORT, FINISH_LENGTH

from multiverse.budgets import FinishReason
from multiverse_sglang.outputs import add_record
from multiverse_sglang.tree import Member


def accept(update_finish_state: Callable[[Any], None], request: Any, member: Member) -> None:
    """Hand the token that SGLang just appended to `request` to the controller. SGLang may end the strand with it."""
    tree, strand, controller = member.tree, member.strand, member.tree.controller
    member.arrived, member.sampled = True, None
    if member.draining:
        del request.output_ids[-1:]
        return
    if tree.open:
        _reserve(request)
    update_finish_state(request)
    reason = request.finished_reason
    offset, token = len(strand.tokens), request.output_ids[-1]
    if reason is not None and not tree.open:
        if controller.binding.tag(token) is None:
            controller.accept(strand, token)
        controller.end(strand, FinishReason.LENGTH if isinstance(reason, FINISH_LENGTH) else FinishReason.STOP)
        add_record(tree, request)
        return
    if reason is not None and strand.parent is not None:
        controller.end(strand, FinishReason.STOP)  # the token that ends a branch is no part of the answer
    else:
        controller.accept(strand, token)
        member.sampled = offset if strand.tokens[offset : offset + 1] == [token] else None
    if reason is not None:
        _end(member, request, reason)
    elif controller.finish_reason is not None and not tree.open:
        request.finished_reason = FINISH_LENGTH(len(request.output_ids))
        add_record(tree, request)
    if member.sampled is None:
        del request.output_ids[-1:]


def _reserve(run: Any) -> None:
    """Keep SGLang from holding a run back because its next token might be the last it may generate."""
    parameters = run.sampling_params
    parameters.max_new_tokens = max(parameters.max_new_tokens, len(run.output_ids) + 2)


def _end(member: Member, run: Any, reason: Any) -> None:
    """SGLang ended a run: by a stop string or token, or an error. Its KV is not SGLang's to release."""
    run.finished_reason = run.finished_len = None
    controller, tree = member.tree.controller, member.tree
    controller.end(member.strand, FinishReason.STOP)
    if isinstance(reason, FINISH_ABORT):
        controller.abort()
    if controller.finish_reason is not None:
        tree.reason = reason
