"""Replay: parts of strands that, computed one after the other, give the KV that decoding gave."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import trees
from toy import BINDINGS, Host, encode, goal

from multiverse import Controller, Limits, Status, Strand, layout, to_transcript
from multiverse.decoding.replay import parts
from multiverse.structure.layout import Separators

KV = list[tuple[int, int]]
"""Token and position of each entry."""


def compute(controller: Controller, strand: Strand, shared: KV) -> KV:
    """What an engine holds after replaying `strand` behind the KV it shares: extend, fork, join, extend, ..."""
    kv = list(shared)
    for part in parts(controller, strand):
        start = len(kv)
        kv += [(token, index + part.delta) for index, token in enumerate(part.tokens, start)]
        branches = [compute(controller, child, kv)[len(kv) :] for child in part.children if child.tokens]
        kv += [entry for branch in branches for entry in branch]
    return kv


def expected(controller: Controller, separators: Separators) -> KV:
    transcript = to_transcript(controller)
    return list(zip(transcript.ids, layout(transcript, separators).positions, strict=True))


@pytest.mark.parametrize("separators", ["overlap", "advance"])
@given(text=trees())
def test_a_prompt_with_blocks_is_replayed_as_its_layout_says(text: str, separators: Separators) -> None:
    controller = Controller(BINDINGS["multiverse"], prompt=encode("ab" + text), separators=separators)
    controller.begin()
    assert compute(controller, controller.root, []) == expected(controller, separators)


@pytest.mark.parametrize("separators", ["overlap", "advance"])
@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 150))
def test_a_request_is_replayed_at_any_moment_as_it_was_decoded(seed: int, steps: int, separators: Separators) -> None:
    rng = random.Random(seed)
    prompt = encode(rng.choice(["ab", "ab" + goal(3)]))
    limits = Limits(max_tokens=rng.choice([None, 60]), max_parallel=rng.choice([None, 1]))
    host = Host(Controller(BINDINGS["multiverse"], limits, prompt, separators=separators))
    for _ in range(steps):
        if not host.running:
            break
        strand = rng.choice(host.running)
        tags = sorted(host.controller.allowed(strand))
        host.feed(strand, [rng.choice(tags) if tags and rng.random() < 0.6 else encode(rng.choice("ab1\n"))[0]])
    assert compute(host.controller, host.root, []) == expected(host.controller, separators)


def test_a_strand_whose_branches_run_ends_with_the_part_that_forks() -> None:
    host = Host(Controller(BINDINGS["multiverse"], prompt=encode("a")))
    host.feed(host.root, goal(2))
    assert host.root.status is Status.PARKED
    (part,) = parts(host.controller, host.root)
    assert part.tokens == encode("a" + goal(2) + "\n")
    assert [child.label for child in part.children] == ["1", "2"]
    for child in part.children:
        host.feed(child, "b</Path>")
    first, second = parts(host.controller, host.root)
    assert second.tokens == encode("<Conclusion>")
    assert (first.delta, second.children) == (0, ())
    assert second.delta < 0
