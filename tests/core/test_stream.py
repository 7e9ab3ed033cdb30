"""What a client sees: one text in document order, or events per branch; every token once, as early as possible."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from strategies import dialects, limits
from toy import BINDINGS, decode, goal, host, play

from multiverse import Controller, DocumentStream, EventStream, Reason, to_transcript


def test_the_first_open_branch_is_live_and_later_ones_are_held_back() -> None:
    h = host()
    stream = DocumentStream(h.root)
    h.feed(h.root, goal(2))
    first, second = h.running
    assert decode(stream.drain()) == goal(2) + "\n<Path>\n1:"
    h.feed(second, "bb")
    assert stream.drain() == []
    h.feed(first, "a")
    assert decode(stream.drain()) == "a"
    h.feed(second, "</Path>")
    h.feed(first, "a</Path>")
    assert decode(stream.drain()) == "a</Path>\n<Path>\n2:bb</Path>\n<Conclusion>"
    h.feed(h.root, "c")
    assert decode(stream.drain()) == "c"
    assert stream.drain() == []


@given(dialects, limits, st.integers(0, 1 << 30))
def test_streamed_tokens_are_the_document(dialect: str, caps: object, seed: int) -> None:
    """However often it is asked: document order, each token exactly once, all there at the end."""
    h = play(dialect, caps, [], "overlap", seed, 0.9)  # the host drains at every token
    late = DocumentStream(h.root).drain()
    assert h.shown == late == to_transcript(h.controller).ids


@given(dialects, limits, st.integers(0, 1 << 30))
def test_events_tell_every_strand_from_its_first_token_to_its_last(dialect: str, caps: object, seed: int) -> None:
    """Put together by key, the deltas are the strands; a fork comes before what its branches say, a close after."""
    h = play(dialect, caps, [], "overlap", seed, 0.9)
    told: dict[tuple[int, ...], list[int]] = {}
    known, closed = {()}, set()
    for event in h.events:
        assert event.key in known, "a branch spoke before it was forked"
        if event.kind == "delta":
            assert event.tokens
            assert event.key not in closed, "a branch spoke after it was closed"
            told.setdefault(event.key, []).extend(event.tokens)
        elif event.kind == "fork":
            block = sum(key[:-2] == event.key and key[-1] == 0 for key in known if key)
            children = [key for key, _ in event.branches]
            assert children == [(*event.key, block, i) for i in range(len(children))]
            known |= set(children)
        elif event.kind == "close":
            closed.add(event.key)
    strands = {strand.key: strand.tokens for strand in h.root.walk() if strand.tokens}
    assert told == strands
    assert [event.kind for event in h.events].count("finish") == 1
    assert h.events[-1].kind == "finish"
    assert h.events[-1].reason == h.controller.finish_reason


def test_events_come_in_the_order_things_happen() -> None:
    h = host()
    h.feed(h.root, "a")
    h.feed(h.root, goal(2))
    first, second = h.running
    h.feed(second, "b</Path>")
    h.feed(first, "</Path>")
    h.feed(h.root, "c<eos>")
    heard = [(e.kind, e.key) for e in h.events]
    fork = heard.index(("fork", ()))
    assert heard[:fork] == [("delta", ())] * fork
    assert heard[fork + 1 :] == [
        *[("delta", (0, 0)), ("delta", (0, 1))],
        *[("delta", (0, 1)), ("delta", (0, 1)), ("close", (0, 1))],
        *[("delta", (0, 0)), ("close", (0, 0)), ("join", ()), ("delta", ())],
        *[("delta", ()), ("delta", ()), ("finish", ())],
    ]
    assert [label for _, label in h.events[fork].branches] == ["1", "2"]
    assert [e.reason for e in h.events if e.kind == "close"] == ["path_close", "path_close"]


def test_a_fallback_is_told_with_its_reason() -> None:
    h = host()
    h.feed(h.root, goal(1))
    assert h.events[-1].kind == "fallback"
    assert h.events[-1].reason == Reason.SINGLE_OUTLINE


def test_streams_may_be_asked_before_anything_was_said() -> None:
    controller = Controller(BINDINGS["multiverse"])
    assert DocumentStream(controller.root).drain() == []
    assert EventStream(controller.root).push(controller.root, []) == []
