"""What the client of a tree sees: its tokens and their logprobs, in document order, through SGLang's own streamer."""

from __future__ import annotations

from typing import Any, NamedTuple

from multiverse_sglang.streamer import tell
from multiverse_sglang.tree import Member, RequestTree


class Row(NamedTuple):
    """Logprobs of one sampled token, as SGLang reports them; what was not asked for is `None`."""

    value: float
    top: tuple[list[float], list[int]] | None
    chosen: tuple[list[float], list[int]] | None


def record_row(member: Member) -> None:
    """Keep the logprobs that came with the token just sampled for `member`, and clear its run's lists."""
    if not member.run.return_logprob:
        return
    found = member.run.logprob
    lists = [
        found.output_token_logprobs_val,
        found.output_token_logprobs_idx,
        found.output_top_logprobs_val,
        found.output_top_logprobs_idx,
        found.output_token_ids_logprobs_val,
        found.output_token_ids_logprobs_idx,
    ]
    if member.sampled is not None and lists[0]:
        top = (lists[2][-1], lists[3][-1]) if lists[2] else None
        chosen = (lists[4][-1], lists[5][-1]) if lists[4] else None
        rows = member.tree.rows.setdefault(member.strand.key, {})
        rows[member.sampled] = Row(lists[0][-1], top, chosen)
    for values in lists:
        values.clear()


def show(scheduler: Any, tree: RequestTree) -> None:
    """Hand what can be shown now to SGLang's streamer, which decides by itself when to send it."""
    client = tree.client
    first, drained = len(client.output_ids), tree.stream.drain()
    tokens = drained[len(drained) + first - tree.stream.shown :]  # SGLang itself showed what came before the first fork
    if not tokens and not client.finished():
        return
    client.output_ids.extend(tokens)
    if client.return_logprob:
        _append_rows(tree, tokens, first)
    if client.finished():
        add_record(tree, client)
    elif client.check_match_stop_str_prefix():
        return  # SGLang sends parts of answers also where the client gets it whole, and could not take them back
    scheduler.output_streamer.stream_output([client], client.return_logprob)


def add_record(tree: RequestTree, request: Any) -> None:
    """Send the record of a request that ended with its last output: its last token may have no logprob yet."""
    tell(request, lambda: tree.record(tree.tally, tree.asked, lambda: _strand_logprobs(tree)))


def _strand_logprobs(tree: RequestTree) -> dict[tuple[int, ...], list[float | None]] | None:
    """By strand key, a logprob per token, if the client asked; `None` for those that the engine wrote."""
    if not tree.client.return_logprob:
        return None
    known = tree.client.logprob.output_token_logprobs_val
    values: dict[tuple[int, ...], list[float | None]] = {}
    at = 0
    for strand, start, end in tree.controller.root.spans():
        rows, found = tree.rows.get(strand.key, {}), values.setdefault(strand.key, [])
        for offset in range(start, end):
            plain = at < len(known) and (at < tree.plain or not tree.open)
            found.append(known[at] if plain else rows[offset].value if offset in rows else None)
            at += 1
    return values


def _append_rows(tree: RequestTree, tokens: list[int], first: int) -> None:
    """Logprobs of `tokens`, the first of which is number `first` of the answer.

    A token that the engine wrote has logprob 0: it was not left to chance.
    """
    found = tree.client.logprob
    wanted = found.token_ids_logprob
    places = [(s.key, i) for s, start, end in tree.controller.root.spans() for i in range(start, end)]
    for token, (key, offset) in zip(tokens, places[first : first + len(tokens)], strict=True):
        row: Row = tree.rows.get(key, {}).get(offset) or Row(0.0, None, None)
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
