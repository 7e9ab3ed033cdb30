"""Several tokens of a strand in one step: the answer is that of one token per step (SEMANTICS section 7)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import dialects, separators
from tiers import sizes
from toy import BINDINGS, WORDS, encode

from multiverse import Controller, FinishReason, Limits, Status, Strand
from multiverse.decoding.stream import EventStream
from multiverse.errors import OptionError
from multiverse.serving.drafts import best_draft_lengths, read_draft_lengths
from multiverse.serving.stops import Stops
from multiverse.serving.verdict import Judge, Verdict

LONGEST = 60
"""Positions after which the request ends; whose tokens come first must not matter, so it is no number of tokens."""


def says(dialect: str, seed: int, key: tuple[int, ...], tokens: list[int]) -> int:
    """What the model says in the strand `key` behind `tokens`: mostly well-formed blocks, by chance something else."""
    rng = Random(f"{seed} {key} {tokens}")
    binding = BINDINGS[dialect]
    if rng.random() < 0.05:
        return rng.choice([*binding.tags, *binding.eos, *encode(WORDS, dialect)])
    script = [*binding.goal(["1", "2"]), *encode("ab", dialect), *binding.tags]
    return script[len(tokens) % len(script)] if rng.random() < 0.95 else rng.choice(encode(WORDS, dialect))


def answer(
    make: Callable[[], Controller], stops: Stops, model: Callable[[Strand, list[int]], int], width: Callable[[], int]
) -> list[Any]:
    """Decode with up to `width()` tokens in a step; what the answer is, and what its client was told of each strand."""
    controller = make()
    judge, stream = Judge(controller, stops), EventStream(controller.root)
    events = stream.push(controller.root, controller.begin())
    for _ in range(4000):
        running = [strand for strand in controller.root.walk() if strand.status is Status.RUNNING]
        if not running:
            break
        for strand in running:
            drafted: list[int] = []
            for _ in range(width()):
                drafted.append(model(strand, strand.tokens + drafted))
            for token in drafted:
                verdict = judge.decide(strand, token)
                events += stream.push(strand, verdict.actions)
                if strand.status is not Status.RUNNING:
                    break
                assert verdict.kept == len(strand.tokens)
    strands = [
        (s.key, s.tokens, s.injected, s.status, s.finish_reason, s.position, s.fallbacks)
        for s in controller.root.walk()
    ]
    said: dict[tuple[int, ...], list[Any]] = {}
    for event in events:
        of = said.setdefault(event.key, [[]])
        if event.kind == "delta":
            of[0] += event.tokens
        else:
            of.append((event.kind, event.label, event.branches, event.reason))
    return [strands, controller.finish_reason, controller.ledger.used, said]


@settings(max_examples=sizes().streams)
@given(st.integers(0, 10**6), dialects, separators, st.integers(1, 8), st.sampled_from([(), ("ab",), ("a", "bab")]))
def test_answers_are_those_of_one_token_per_step(
    seed: int, dialect: str, setting: Any, most: int, strings: tuple[str, ...]
) -> None:
    def make() -> Controller:
        return Controller(BINDINGS[dialect], Limits(max_critical_path=LONGEST), separators=setting)

    def model(strand: Strand, tokens: list[int]) -> int:
        return says(dialect, seed, strand.key, tokens)

    rng, stops = Random(seed), Stops(strings=strings)
    assert answer(make, stops, model, lambda: rng.randint(1, most)) == answer(make, stops, model, lambda: 1)


def test_the_model_of_that_test_forks_and_joins() -> None:
    """Else it would show nothing."""
    found = [
        answer(
            lambda: Controller(BINDINGS["multiverse"], Limits(max_critical_path=LONGEST)),
            Stops(),
            lambda strand, tokens, seed=seed: says("multiverse", seed, strand.key, tokens),  # type: ignore[misc]
            lambda: 3,
        )
        for seed in range(60)
    ]
    forked = [strands for strands, *_ in found if len(strands) > 1]
    assert len(forked) >= 10
    assert any(strand[3] is Status.CLOSED for strands in forked for strand in strands[1:])


def goes_on(strand: Strand, verdict: Verdict) -> bool:
    """Whether what was sampled behind that token is taken, too."""
    return strand.status is Status.RUNNING and verdict.kept == len(strand.tokens)


GOAL = "<Parallel><Goal><Outline>1:a</Outline><Outline>2:b</Outline></Goal>"


def test_what_comes_behind_a_fork_or_a_close_is_dropped() -> None:
    controller = Controller(BINDINGS["multiverse"])
    judge, root = Judge(controller, Stops()), controller.root
    taken = [goes_on(root, judge.decide(root, token)) for token in encode(GOAL)]
    assert taken == [True] * (len(taken) - 1) + [False]
    branch = root.forks[0][1][0]
    taken = [goes_on(branch, judge.decide(branch, token)) for token in encode("ab</Path>")]
    assert taken == [True, True, False]
    assert branch.finish_reason is FinishReason.PATH_CLOSE


@pytest.mark.parametrize("last", ["fallback", "limit"])
def test_a_goal_that_is_not_forked_goes_on_and_a_limit_does_not(last: str) -> None:
    caps = Limits(max_branches=1) if last == "fallback" else Limits(max_tokens=len(encode(GOAL)))
    controller = Controller(BINDINGS["multiverse"], caps)
    judge, root = Judge(controller, Stops()), controller.root
    taken = [goes_on(root, judge.decide(root, token)) for token in encode(GOAL)]
    assert taken[-1] is (last == "fallback")


def test_lengths_of_drafts_fall_with_the_rows_of_a_step() -> None:
    table = read_draft_lengths("1:4,8:2,32:0")
    assert [table.at(rows) for rows in (0, 1, 7, 8, 31, 32, 500)] == [4, 4, 4, 2, 2, 0, 0]
    assert [read_draft_lengths(given).at(64) for given in (3, "3", 0)] == [3, 3, 0]


def test_the_table_of_what_was_measured_drafts_the_least_that_is_nearly_the_best() -> None:
    rates = {
        16: {0: 10.0, 2: 11.0, 4: 10.0},
        4: {0: 4, 2: 8, 4: 8.1},
        8: {0: 6, 2: 9, 4: 9.5},
        64: {0: 20, 2: 11, 4: 5},
    }
    table = best_draft_lengths(rates)
    assert str(table) == "1:2,8:4,16:2,64:0"
    assert read_draft_lengths(str(table)) == table
    assert str(best_draft_lengths({2: {0: 1.0, 3: 2.0}, 8: {0: 1.0, 3: 1.5}})) == "1:3"


TEXTS = ("", "a", "1:2:3", "2:4", "1:4,1:2", "8:1,1:2", "1:-1", "1:1," * 200)
OTHERS = (-1, 10**9, pytest.param(10**5000, id="huge"), True, 1.5, None, [4])


@pytest.mark.parametrize("given", TEXTS + OTHERS)
def test_other_lengths_are_refused(given: object) -> None:
    with pytest.raises(OptionError, match="drafts must"):
        read_draft_lengths(given)
