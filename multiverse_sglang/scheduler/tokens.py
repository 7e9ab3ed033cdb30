"""What happens to tokens between SGLang's sampler and its rules for the end of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sglang.srt.managers.schedule_batch import FINISH_ABORT, FINISH_LENGTH, FINISHED_MATCHED_REGEX

from multiverse.decoding.budgets import FinishReason
from multiverse.decoding.strand import Status
from multiverse.serving.verdict import Verdict
from multiverse_sglang.host import FinishReason as HostReason
from multiverse_sglang.host import Request
from multiverse_sglang.scheduler.outputs import add_record
from multiverse_sglang.scheduler.stops import MatchedInStrand
from multiverse_sglang.scheduler.tree import Member, reserve


def one_by_one(request: Request, count: int) -> Iterator[int]:
    """Let `request` have its last `count` tokens one after the other; those that nobody asks for are dropped."""
    tokens = request.output_ids[-count:]
    del request.output_ids[-count:]
    for token in tokens:
        request.output_ids.append(token)
        yield token


def dropped_drafts(sampled: int, kept: int) -> int:
    """How many of the drafts that were accepted in a step are dropped. The last of its tokens was not drafted."""
    return max(0, sampled - 1 - kept)


def accept(update_finish_state: Callable[[], None], request: Request, member: Member, count: int) -> None:
    """Decide about the tokens that SGLang just appended to `request`, one by one: SGLang's own rules first, then ours.

    More than one comes where drafts were accepted. What comes behind one that forks, closes or ends the strand is
    dropped (SEMANTICS section 7); its KV lies behind the request's tokens then, where it is taken over by nobody.
    What the controller orders is done once the step is over, by looking at strands (`forks.reconcile`); the actions are
    the journal that events are told from.
    """
    member.note_result()
    if member.draining:
        del request.output_ids[-count:]
        return
    first = kept = len(member.strand.tokens)
    for _ in one_by_one(request, count):
        if member.tree.is_forked:
            reserve(request, 2)
        update_finish_state()
        kept = decide(request, member)
        if member.strand.status is not Status.RUNNING:
            break
    member.sampled = range(first, max(first, kept))
    member.tree.accepted_drafts -= dropped_drafts(count, len(member.sampled))


def decide(request: Request, member: Member) -> int:
    """Our rules for the last token of `request`, to which SGLang has applied its own; as `Verdict.kept`."""
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
    if verdict.kept <= offset:
        _truncate(member, request, verdict.kept)
        tree.drop_rows(strand.key, verdict.kept)
    if tree.is_forked:
        _end_run(member, request, reason, verdict)
    elif tree.controller.finish_reason is not None:
        if reason is None:
            request.finished_len = len(request.output_ids)
            request.finished_reason = FINISH_LENGTH(request.finished_len)
        add_record(tree, request)
    return verdict.kept


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
