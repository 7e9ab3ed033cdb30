"""What happens to a token between SGLang's sampler and its rules for the end of a request."""

from __future__ import annotations

from collections.abc import Callable

from sglang.srt.managers.schedule_batch import FINISH_ABORT, FINISH_LENGTH, FINISHED_MATCHED_REGEX

from multiverse.decoding.budgets import FinishReason
from multiverse.serving.verdict import Verdict
from multiverse_sglang.host import FinishReason as HostReason
from multiverse_sglang.host import Request
from multiverse_sglang.scheduler.outputs import add_record
from multiverse_sglang.scheduler.stops import MatchedInStrand
from multiverse_sglang.scheduler.tree import Member, reserve


def accept(update_finish_state: Callable[[], None], request: Request, member: Member) -> None:
    """Decide about the token that SGLang just appended to `request`: SGLang's own rules first, then ours.

    What the controller orders is done once the step is over, by looking at strands (`forks.reconcile`); the actions are
    the journal that events are told from.
    """
    member.note_result()
    if member.draining:
        del request.output_ids[-1:]
        return
    if member.tree.is_forked:
        reserve(request, 2)
    update_finish_state()
    decide(request, member)


def decide(request: Request, member: Member) -> None:
    """Our rules for the last token of `request`, to which SGLang has applied its own."""
    tree, strand = member.tree, member.strand
    reason = request.finished_reason
    offset, token = len(strand.tokens), request.output_ids[-1]
    expression = None
    if isinstance(reason, FINISHED_MATCHED_REGEX):
        expression = reason.matched, offset - len(request.output_ids) + 1
    verdict = (tree.judge if tree.is_forked else tree.host_judge).decide(strand, token, _ended(reason), expression)
    tree.publish(strand, verdict.actions)
    if verdict.actions or verdict.kept <= offset:
        tree.disturb()
    member.sampled = offset if verdict.kept > offset else None
    if verdict.kept <= offset:
        _truncate(member, request, verdict.kept)
        tree.drop_rows(strand.key, verdict.kept)
    if tree.is_forked:
        _end_run(member, request, reason, verdict)
    elif tree.controller.finish_reason is not None:
        request.finished_reason = reason or FINISH_LENGTH(len(request.output_ids))
        add_record(tree, request)


def _ended(reason: HostReason | None) -> FinishReason | None:
    """What SGLang ended a request with."""
    if reason is None:
        return None
    if isinstance(reason, FINISH_ABORT):
        return FinishReason.ABORT
    return FinishReason.LENGTH if isinstance(reason, FINISH_LENGTH) else FinishReason.STOP


def _truncate(member: Member, run: Request, kept: int) -> None:
    """Keep the first `kept` tokens of a strand in its run; some may be of the prompt that the run was made with."""
    own = kept - member.tokens_submitted
    del run.output_ids[max(0, own) :]
    if own < 0:
        del member.tokens[own:]
        member.tokens_submitted = kept
        run.origin_input_ids = run.origin_input_ids[: len(member.tokens)]


def _end_run(member: Member, run: Request, reason: HostReason | None, verdict: Verdict) -> None:
    """SGLang, or a stop string, may have ended a run. Its KV is not SGLang's to release."""
    tree, aborted = member.tree, isinstance(reason, FINISH_ABORT)
    run.finished_reason = run.finished_len = None
    if aborted:
        tree.abort()
    if aborted or member.strand.parent is None:
        tree.reason = reason if verdict.string is None else MatchedInStrand(verdict.string, verdict.from_end)
