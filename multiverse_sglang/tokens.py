"""What happens to a token between SGLang's sampler and its rules for the end of a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sglang.srt.managers.schedule_batch import FINISH_ABORT, FINISH_LENGTH

from multiverse.budgets import FinishReason
from multiverse_sglang.outputs import add_record
from multiverse_sglang.tree import Member, RequestTree


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
        _end_plain(tree, request, token)
        return
    if reason is not None and strand.parent is not None:
        tree.end(strand, FinishReason.STOP)  # the token that ends a branch is no part of the answer
    else:
        tree.tell(strand, controller.accept(strand, token))
        member.sampled = offset if strand.tokens[offset : offset + 1] == [token] else None
    if reason is not None:
        _end(member, request, reason)
    elif controller.finish_reason is not None and not tree.open:
        request.finished_reason = FINISH_LENGTH(len(request.output_ids))
        add_record(tree, request)
    if member.sampled is None:
        del request.output_ids[-1:]


def _end_plain(tree: RequestTree, request: Any, token: int) -> None:
    """SGLang ended a request that had not forked yet, with `token`."""
    controller, root = tree.controller, tree.controller.root
    if controller.binding.tag(token) is None:
        tree.tell(root, controller.accept(root, token))
    length = isinstance(request.finished_reason, FINISH_LENGTH)
    tree.end(root, FinishReason.LENGTH if length else FinishReason.STOP)
    add_record(tree, request)


def _reserve(run: Any) -> None:
    """Keep SGLang from holding a run back because its next token might be the last it may generate."""
    parameters = run.sampling_params
    parameters.max_new_tokens = max(parameters.max_new_tokens, len(run.output_ids) + 2)


def _end(member: Member, run: Any, reason: Any) -> None:
    """SGLang ended a run: by a stop string or token, or an error. Its KV is not SGLang's to release."""
    run.finished_reason = run.finished_len = None
    tree = member.tree
    tree.end(member.strand, FinishReason.STOP)
    if isinstance(reason, FINISH_ABORT):
        tree.abort()
    if tree.controller.finish_reason is not None:
        tree.reason = reason
