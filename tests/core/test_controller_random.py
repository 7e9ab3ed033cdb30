"""Nothing a model can write may crash, hang or corrupt an engine: random streams through the controller."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import dialects, limits, separators, stop_rules, token_soup, trees
from tiers import sizes
from toy import BINDINGS, DIALECTS, Host, encode, goal, play

from multiverse import Controller, FinishReason, Limits, Status, layout, statistics, to_transcript
from multiverse.serving.stops import Stops


def check(h: Host, caps: Limits, prompt: list[int], setting: str) -> None:
    """What has to hold once a request is over, whatever was in it."""
    controller, root = h.controller, h.root
    assert controller.finish_reason is not None
    assert h.running == []
    assert all(s.status is Status.CLOSED for s in root.walk()), "a strand was left behind"
    used = controller.ledger.used
    assert caps.max_tokens is None or used <= caps.max_tokens
    assert caps.context_length is None or len(prompt) + used <= max(caps.context_length, len(prompt))
    transcript = to_transcript(controller)
    assert transcript.ids == prompt + h.shown
    assert len(h.shown) == used
    written = [(s, start, end) for s in root.walk() for start, end in s.injected]
    assert sum(end - start for _, start, end in written) == controller.ledger.injected
    assert all(start < end <= len(s.tokens) for s, start, end in written)
    if caps.max_critical_path is not None:
        assert layout(transcript, controller.separators).critical_path(len(prompt)) <= caps.max_critical_path
    if controller.finish_reason is not FinishReason.ABORT:
        laid = layout(transcript, controller.separators, controller.binding.dialect.join)
        assert laid.next_position == root.position
        assert root.kv_length == len(transcript)
        assert controller.ledger.reserved == 0 or root.open_children
    assert statistics(transcript, len(prompt), setting).tokens == used
    told = sorted(token for event in h.events for token in event.tokens)
    assert told == sorted(h.shown)


@settings(max_examples=sizes().streams)
@given(
    st.data(), dialects, limits, separators, st.integers(0, 1 << 30), st.sampled_from([0.0, 0.6, 0.9, 1.0]), stop_rules
)
def test_any_token_stream_is_survived(
    data: st.DataObject, dialect: str, caps: Limits, setting: str, seed: int, follow: float, stops: Stops
) -> None:
    """Never raises, never exceeds a budget, is always in a state a host can act on, leaves no strand behind."""
    prompt = data.draw(token_soup(dialect, 25))
    check(play(dialect, caps, prompt, setting, seed, follow, stops=stops), caps, prompt, setting)


@settings(max_examples=sizes().streams)
@given(st.data(), dialects, limits, separators, st.integers(0, 1 << 30))
def test_any_prompt_is_taken_up(data: st.DataObject, dialect: str, caps: Limits, setting: str, seed: int) -> None:
    """A prompt cut off anywhere in a tree: in a goal, after it, in a path, in a conclusion."""
    whole = encode(data.draw(trees(dialect)), dialect)
    prompt = whole[: data.draw(st.integers(0, len(whole)))]
    check(play(dialect, caps, prompt, setting, seed, 0.95), caps, prompt, setting)


@given(st.data(), dialects, limits, separators)
def test_any_drawn_token_stream_is_survived(data: st.DataObject, dialect: str, caps: Limits, setting: str) -> None:
    """The same with streams that hypothesis can shrink."""
    h = Host(Controller(BINDINGS[dialect], caps, [], separators=setting))
    for i, token in enumerate(data.draw(token_soup(dialect))):
        if h.running:
            h.feed(h.running[i % len(h.running)], [token])
    h.do(h.root, h.controller.abort())
    check(h, caps, [], setting)


@pytest.mark.parametrize("setting", ["overlap", "advance"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_layout_of_the_document_gives_the_positions_handed_out(dialect: str, setting: str) -> None:
    """Token by token: where the controller computed it is where the layout of the finished tree puts it."""
    forks = 0
    for seed in range(25):
        h = play(dialect, Limits(max_tokens=250), [], setting, seed, 1.0)
        transcript = to_transcript(h.controller)
        laid = layout(transcript, h.controller.separators)
        at = 0
        for strand, start, end in h.root.spans():
            if start == 0 and end and strand.key in h.starts:
                forks += 1
                if h.controller.binding.dialect.join == "splice":
                    assert laid.positions[at] == h.starts[strand.key]
            at += end - start
    assert forks > 5


@given(dialects, st.integers(0, 1 << 30))
def test_strict_mode_can_only_write_well_formed_blocks(dialect: str, seed: int) -> None:
    """Whoever samples only text and allowed tags, and stops outside of any block, wrote a well-formed transcript."""
    chance = random.Random(seed)
    h = Host(Controller(BINDINGS[dialect], Limits(max_depth=3, max_branches=4)))
    for step in range(1500):
        strand = chance.choice(h.running)
        phase, depth = strand.frame.phase, strand.frame.depth
        if strand is h.root and phase.name == "ROOT" and not depth and step > 60:
            break
        allowed = sorted(h.controller.allowed(strand))
        if step > 60:  # work towards the end: open nothing that needn't be
            allowed = closing(h, strand, allowed)
        token = chance.choice(allowed) if allowed and chance.random() < (0.5 if step < 60 else 0.9) else 9
        h.feed(strand, [token])
    else:
        pytest.fail("the grammar offered no way out of a block")
    transcript = to_transcript(h.controller)
    assert transcript.well_formed, transcript.violations[0]


def closing(h: Host, strand: object, allowed: list[int]) -> list[int]:
    ids = h.controller.binding.ids
    opening = {ids[tag] for tag in ids if str(tag) in ("block-open",)}
    if "block-open" not in {str(tag) for tag in ids} and strand.frame.phase.value < 4:  # type: ignore[attr-defined]
        opening = {ids[tag] for tag in ids if str(tag) == "goal-open"}
    left = [token for token in allowed if token not in opening]
    finishing = [t for t in left if str(h.controller.binding.tags[t]) != "outline-open"]
    return finishing or left


def test_a_long_answer_is_counted_to_the_last_token() -> None:
    """How long a million tokens take is measured by benchmarks/core.py."""
    h = Controller(BINDINGS["multiverse"])
    for _ in range(1_000_000):
        h.accept(h.root, 9)
    assert h.root.position == h.root.kv_length == h.ledger.used == 1_000_000


@pytest.mark.parametrize("setting", ["overlap", "advance"])
@pytest.mark.parametrize("bound", range(5, 16))
def test_positions_count_from_the_first_path_if_the_prompt_closes_the_goal(bound: int, setting: str) -> None:
    """The first generated token then overlaps the separator, which lies in the prompt."""
    prompt, caps = encode(goal(5) + "\n"), Limits(max_critical_path=bound)
    check(play("multiverse", caps, prompt, setting, 1, 0.5), caps, prompt, setting)
