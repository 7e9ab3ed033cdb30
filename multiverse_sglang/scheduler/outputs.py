"""What the client of a tree sees: its tokens and their logprobs, in document order, through SGLang's own streamer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sglang.srt.runtime_context import get_serving

from multiverse.decoding.sampled_rows import SampledRows
from multiverse.decoding.stream import Span, tokens_of
from multiverse_sglang.host import Logprobs, Request, Scheduler
from multiverse_sglang.scheduler.prompt_logprobs import deliver
from multiverse_sglang.scheduler.streamer import Extras, attach
from multiverse_sglang.scheduler.tree import Member, RequestTree, Row
from multiverse_sglang.scheduler.weights import begin_versions


def record_row(member: Member) -> None:
    """Keep the logprobs that came with what was just sampled for `member`, and clear its run's lists."""
    run = member.run
    if run is None or not run.return_logprob:
        return
    lists = _lists(run.logprob)
    if lists[0] and member.tree.rows is not None:
        for at, offset in enumerate(member.sampled):
            top = (lists[2][at], lists[3][at]) if lists[2] else None
            chosen = (lists[4][at], lists[5][at]) if lists[4] else None
            row = Row(lists[0][at], top, chosen)
            member.tree.rows.record(member.strand, offset, row.value, row)
    for values in lists:
        values.clear()


def _lists(found: Logprobs) -> list[Any]:
    """Where SGLang writes logprobs of what a request samples, an entry for each token."""
    return [
        found.output_token_logprobs_val,
        found.output_token_logprobs_idx,
        found.output_top_logprobs_val,
        found.output_top_logprobs_idx,
        found.output_token_ids_logprobs_val,
        found.output_token_ids_logprobs_idx,
    ]


def drop_logprobs(request: Request) -> None:
    """Forget the logprobs of tokens that were dropped behind the last one of `request`."""
    for values in _lists(request.logprob) if request.return_logprob else ():
        del values[len(request.output_ids) :]


def record_host_streamed(tree: RequestTree) -> None:
    """Keep the logprobs of what SGLang has answered by itself, for the tree."""
    if tree.rows is not None and tree.rows.keep_values:
        known = tree.client.logprob.output_token_logprobs_val[: len(tree.client.output_ids)]
        for offset, value in enumerate(known):
            tree.rows.record(tree.controller.root, offset, value, None)


def show(scheduler: Scheduler, tree: RequestTree) -> None:
    """Hand what can be shown now to SGLang's streamer, which decides by itself when to send it."""
    client = tree.client
    if tree.scores is not None and tree.scores.complete:
        deliver(tree)
    if tree.scores is not None and not client.finished():
        return  # clients expect scores of the prompt in the first output
    spans = tree.stream.drain_spans()
    if not spans and not client.finished():
        return
    client.output_ids.extend(tokens_of(spans))
    if tree.rows is not None:
        _append_rows(client.logprob, spans, tree.rows)
    if client.finished():
        add_record(tree, client)
    elif client.check_match_stop_str_prefix():
        return  # SGLang sends parts of answers also where the client gets it whole, and could not take them back
    scheduler.output_streamer.stream_output([client], client.return_logprob)


def add_record(tree: RequestTree, request: Request) -> None:
    """Send the record of a request that ended with its last output: its last token may have no logprob yet."""
    attach(request, lambda: _record(tree))


def _record(tree: RequestTree) -> Extras | None:
    if not tree.is_forked:
        record_host_streamed(tree)
        begin_versions(tree, tree.client.weight_version_events)
    return tree.record(tree.tally, tree.asked, get_serving().weight_version)


def _append_rows(found: Logprobs, spans: Sequence[Span], rows: SampledRows[Row]) -> None:
    """Logprobs of the tokens of `spans`. A token that the engine wrote has logprob 0: it was not left to chance."""
    wanted = found.token_ids_logprob
    for token, known in zip(tokens_of(spans), rows.take(spans), strict=True):
        row = known or Row(0.0, None, None)
        found.output_token_logprobs_val.append(row.value)
        found.output_token_logprobs_idx.append(token)
        if found.top_logprobs_num > 0:
            values, ids = row.top or ([0.0], [token])
            found.output_top_logprobs_val.append(values)
            found.output_top_logprobs_idx.append(ids)
        if wanted is not None:
            values, ids = row.chosen or ([0.0] * len(wanted), wanted)
            found.output_token_ids_logprobs_val.append(values)
            found.output_token_ids_logprobs_idx.append(ids)
