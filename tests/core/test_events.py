"""What a client makes of events: texts in pieces that are whole characters, and a tree that grows into the answer."""

from __future__ import annotations

import json
from dataclasses import astuple
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import dialects, limits
from toy import TOKENIZERS, goal, host, play

from multiverse import Limits, to_transcript
from multiverse.decoding.stream import BranchEvent
from multiverse.wire.detokenizer import TextStream
from multiverse.wire.events import Branches, Event, EventWriter
from multiverse.wire.responses import extra_chunk, usage


class Bytes:
    """A token is a byte; 256 is a special token."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        special = b"" if skip_special_tokens else b"<s>"
        return b"".join(special if i == 256 else bytes([i]) for i in ids).decode(errors="replace")


class Words:
    """A word loses its leading space at the beginning of a text, as SentencePiece has it."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:  # noqa: ARG002
        return "".join(f" w{i}" for i in ids).removeprefix(" ")


class Skipping:
    """The toy tokenizer with the argument that Hugging Face's has."""

    def __init__(self, dialect: str) -> None:
        self._inner = TOKENIZERS[dialect]

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:  # noqa: ARG002
        return self._inner.decode(ids)


@given(st.text(), st.lists(st.integers(1, 4)))
def test_pieces_are_whole_characters_and_add_up(text: str, sizes: list[int]) -> None:
    stream, ids, pieces = TextStream(Bytes()), list(text.encode()), []
    for size in [*sizes, *[1] * len(ids)]:
        pieces.append(stream.feed(ids[:size]))
        del ids[:size]
    pieces.append(stream.flush())
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces if "\ufffd" not in text)


def test_a_character_cut_short_is_held_back_until_it_is_certain() -> None:
    stream = TextStream(Bytes())
    assert stream.feed(b"ab") == "ab"
    assert stream.feed("é".encode()[:1]) == ""
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""


def test_special_tokens_are_shown_only_if_asked_for() -> None:
    assert TextStream(Bytes()).feed([97, 256]) == "a"
    assert TextStream(Bytes(), skip_special_tokens=False).feed([97, 256]) == "a<s>"


def test_a_word_in_the_middle_keeps_its_space() -> None:
    stream = TextStream(Words())
    assert [stream.feed([i]) for i in (1, 2, 3)] == ["w1", " w2", " w3"]


@given(dialects, limits, st.integers(0, 1 << 30))
def test_events_over_the_wire_grow_into_the_document(dialect: str, caps: object, seed: int) -> None:
    h = play(dialect, caps, [], "overlap", seed, 0.9)
    writer, branches = EventWriter(Skipping(dialect)), Branches()
    for event in h.events:
        sent = BranchEvent(*json.loads(json.dumps(astuple(event))))
        for told in writer.write([sent]):
            branches.apply(Event.from_json(json.loads(json.dumps(told.to_json()))))
    assert branches.root.text == TOKENIZERS[dialect].decode(to_transcript(h.controller).ids)
    for strand in h.root.walk():
        branch = branches[strand.key]
        assert (branch.label, branch.tokens) == (strand.label, len(strand.tokens))
        assert branch.reason == strand.finish_reason
        assert branch.fallbacks == [str(reason) for _, reason in sorted(strand.fallbacks.items())]
        assert [tuple(child.key for child in block) for block in branch.blocks] == [
            tuple(child.key for child in children) for _, children in strand.forks
        ]


def test_a_branch_waits_runs_is_parked_and_is_closed() -> None:
    h = host(limits=Limits(max_parallel=1))
    branches, writer = Branches(), EventWriter(Skipping("multiverse"))

    def states() -> list[str]:
        events, h.events = h.events, []
        for event in writer.write(events):
            branches.apply(event)
        return [branch.state for branch in branches]

    h.feed(h.root, goal(2))
    assert states() == ["parked", "running", "waiting"]
    h.feed(h.running[0], "a</Path>")
    assert states() == ["parked", "closed", "running"]
    h.feed(h.running[0], "b</Path>")
    assert states() == ["running", "closed", "closed"]
    h.feed(h.root, "c<eos>")
    assert states() == ["closed"] * 3


def test_an_event_of_an_unknown_branch_is_not_swallowed() -> None:
    with pytest.raises(KeyError):
        Branches().apply(Event("delta", (0, 1), "2", "x", 1))


def test_fields_that_a_later_server_adds_are_ignored() -> None:
    assert Event.from_json({"kind": "join", "key": [0, 1], "label": "2", "later": 1}) == Event("join", (0, 1), "2")


def record(**figures: Any) -> dict[str, Any]:
    sums = ("blocks", "branches", "injected_tokens", "recomputed_tokens", "accepted_draft_tokens")
    nothing = dict.fromkeys((*sums, "max_width", "depth"), 0)
    return {"tokens": 10, "critical_path_tokens": 5, "fallbacks": {}, **nothing, **figures}


def test_figures_of_several_answers_are_summed_or_the_largest() -> None:
    figures = usage(
        [record(blocks=1, max_width=3, fallbacks={"too_wide": 1}), record(tokens=2, fallbacks={"too_wide": 2})]
    )
    assert (figures["tokens"], figures["critical_path_tokens"], figures["parallel_degree"]) == (12, 10, 1.2)
    assert (figures["blocks"], figures["max_width"], figures["fallbacks"]) == (1, 3, {"too_wide": 3})


@pytest.mark.parametrize("kind", ["chat.completion.chunk", "text_completion"])
def test_an_extra_chunk_reads_as_empty_for_those_who_know_nothing_of_it(kind: str) -> None:
    chunk = extra_chunk(kind, {"id": "1", "model": "m", "created": 0}, 2, {"events": []})
    choice = chunk["choices"][0]
    assert choice["index"] == 2
    assert choice["finish_reason"] is None
    assert choice.get("text") == "" if kind == "text_completion" else choice["delta"] == {}
