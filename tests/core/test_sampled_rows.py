"""Logprob rows of an answer: each token's own, once, in document order; nothing is kept that was shown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from strategies import dialects, limits
from toy import goal, host, play

from multiverse import DocumentStream
from multiverse.decoding.budgets import FinishReason
from multiverse.decoding.sampled_rows import SampledRows
from multiverse.decoding.stream import tokens_of


def test_rows_of_later_branches_wait_and_go_with_their_tokens() -> None:
    h = host()
    stream, rows = DocumentStream(h.root), SampledRows[str](keep_values=True)
    h.feed(h.root, goal(2))
    first, second = h.running
    stream.drain()
    h.feed(second, "b")
    rows.record(second, len(second.tokens) - 1, -2.0, "b's")
    assert rows.take(stream.drain_spans()) == []
    h.feed(second, "</Path>")
    h.feed(first, "a")
    rows.record(first, len(first.tokens) - 1, -1.0, "a's")
    assert rows.take(stream.drain_spans()) == ["a's"]
    h.feed(first, "</Path>")
    shown = stream.drain_spans()
    taken = rows.take(shown)
    assert len(taken) == len(tokens_of(shown))
    assert [row for row in taken if row] == ["b's"]
    assert rows.take(shown) == [None] * len(taken)  # they are not kept
    values = rows.values(h.root)
    assert values is not None
    assert values[second.key] == [-2.0 if at == len(second.header) else None for at in range(len(second.tokens))]


def test_what_was_taken_back_has_no_row_whatever_stands_there_now() -> None:
    h = host()
    stream, rows = DocumentStream(h.root), SampledRows[str](keep_values=True)
    h.feed(h.root, goal(2))
    first, _ = h.running
    stream.drain()
    h.feed(first, "ab\n\n")
    start = len(first.header)
    for offset in range(start, len(first.tokens)):
        rows.record(first, offset, -1.0, str(offset))
    h.controller.take_back(first, start + 1)
    rows.drop(first.key, start + 1)
    h.controller.end(first, FinishReason.STOP)
    assert rows.take(stream.drain_spans())[:3] == [str(start), None, None]
    values = rows.values(h.root)
    assert values is not None
    assert values[first.key] == [*[None] * start, -1.0, None, None]


@given(dialects, limits, st.integers(0, 1 << 30))
def test_every_token_gets_its_own_row(dialect: str, caps: object, seed: int) -> None:
    h = play(dialect, caps, [], "overlap", seed, 0.9)
    rows: SampledRows[tuple[object, int]] = SampledRows(keep_values=False)
    for strand in h.root.walk():
        for offset, token in enumerate(strand.tokens):
            rows.record(strand, offset, 0.0, (strand.key, token))
    spans = DocumentStream(h.root).drain_spans()
    assert rows.take(spans) == [(strand.key, t) for strand, start, end in spans for t in strand.tokens[start:end]]
    assert rows.values(h.root) is None
