"""A controller that comes when a request gets its first tag is the one it would have been from the beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import dialects, limits, separators, token_soup, trees
from tiers import sizes
from toy import BINDINGS, encode

from multiverse import Controller, FinishReason, Limits, Status, Strand, Tag
from multiverse.decoding.late import catch_up, deciding_tokens
from multiverse.serving.options import Options
from multiverse.serving.report import Observed, report
from multiverse.serving.stops import Stops
from multiverse.serving.verdict import Judge
from multiverse.serving.watching import must_be_watched

BINDING = BINDINGS["multiverse"]
ENDS = (None, None, None, FinishReason.STOP, FinishReason.LENGTH, FinishReason.ABORT)


def state(controller: Controller) -> list[Any]:
    """All that a controller and its strands know."""
    ledger, strands = controller.ledger, []
    for strand in controller.root.walk():
        known = {name: getattr(strand, name) for name in Strand.__slots__ if name not in ("parent", "forks")}
        strands.append(known | {"forks": [(at, [c.key for c in children]) for at, children in strand.forks]})
    counts = (ledger.limit, ledger.used, ledger.injected, ledger.reserved)
    return [strands, counts, controller.finish_reason, report(controller, Observed(), with_tree=True)]


def sample(controller: Controller, judge: Judge, at: int, token: int, ended: FinishReason | None) -> list[str]:
    """Give a token to one of the strands that run; what came of it."""
    running = [strand for strand in controller.root.walk() if strand.status is Status.RUNNING]
    if not running:
        return []
    strand = running[at % len(running)]
    verdict = judge.decide(strand, token, ended)
    return [*map(repr, verdict.actions), str((verdict.kept, verdict.string))]


def follow(controller: Controller, tokens: Sequence[int], start: int, ended: FinishReason | None) -> list[Any]:
    """Sample `tokens` from `start` on, the last of which the host ends the strand with; everything seen meanwhile."""
    judge, last = Judge(controller, Stops()), len(tokens) - 1
    seen: list[Any] = []
    for at in range(start, len(tokens)):
        seen += [sample(controller, judge, at, tokens[at], ended if at == last else None), state(controller)]
    return seen


@settings(max_examples=sizes().streams)
@given(st.data(), dialects, limits, separators, st.sampled_from(ENDS))
def test_it_has_decided_and_decides_the_same(
    data: st.DataObject, dialect: str, caps: Limits, setting: Any, ended: FinishReason | None
) -> None:
    """Any stream, taken up at any moment before there is anything to decide."""
    binding = BINDINGS[dialect]
    ordinary = st.integers(0, 45).filter(lambda token: token not in deciding_tokens(binding))
    prompt, said = data.draw(st.lists(ordinary, max_size=20)), data.draw(st.lists(ordinary, max_size=40))
    rest = data.draw(st.one_of(token_soup(dialect, 60), trees(dialect).map(lambda text: encode(text, dialect))))
    tokens = [*said, *rest]
    early = Controller(binding, caps, prompt, separators=setting)
    quiet = not early.begin()
    free = 0  # so many tokens nobody had to look at
    judge = Judge(early, Stops())
    while quiet and free < len(tokens) - 1 and tokens[free] not in deciding_tokens(binding):
        quiet = len(sample(early, judge, 0, tokens[free], None)) == 1
        free += quiet
    moment = data.draw(st.integers(0, free))
    early, late = (Controller(binding, caps, prompt, separators=setting) for _ in range(2))
    assert early.begin() == late.begin() or moment == 0
    follow(early, tokens[:moment], 0, None)
    catch_up(late, tokens[:moment])
    assert state(late) == state(early)
    assert follow(late, tokens, moment, ended) == follow(early, tokens, moment, ended)


@pytest.mark.parametrize("said", [[BINDING.ids[Tag.GOAL_CLOSE]], [1]])
def test_it_is_not_given_what_it_would_have_decided_about(said: list[int]) -> None:
    """A tag, even one out of place, which falls back; an end of turn."""
    with pytest.raises(AssertionError):
        catch_up(Controller(BINDING), said)


def test_it_does_not_come_after_a_limit() -> None:
    for caps in (Limits(max_tokens=2), Limits(max_critical_path=2)):
        with pytest.raises(AssertionError):
            catch_up(Controller(BINDING, caps), [9, 9])


WATCHED = {
    "structure": {"structure": "strict"},
    "max_critical_path": {"max_critical_path": 9},
    "stream": {"stream": "events"},
    "shape": {"shape": [2, [[3], [3]], 2]},
}
"""Options for which tokens before the first tag matter; a client that streams is assumed."""
FREE = {
    "enabled": {},
    "dialect": {"dialect": "npr"},
    "separators": {"separators": "advance"},
    "max_branches": {"max_branches": 2},
    "max_depth": {"max_depth": 0},
    "max_parallel": {"max_parallel": 1},
    "branch_sampling": {"branch_sampling": {"temperature": 1.0}},
    "return_tree": {"return_tree": True},
    "shapes": {"shapes": "accept"},
    "integrity_interval": {"integrity_interval": 3},
    "shared_prefix": {"shared_prefix": "never"},
    "prefill": {"prefill": "replay"},
    "admission": {"admission": "off"},
    "tpot_slo_ms": {"admission": "slack", "tpot_slo_ms": 50.0},
    "ttft_slo_ms": {"admission": "slack", "ttft_slo_ms": 50.0},
    "slo": {"admission": "slack", "slo": {"tpot_ms": 50}},
    "drafts": {"drafts": 2},
    "untested_host": {"untested_host": True},
}
"""Those for which they don't."""


NO_STOPS = Stops()


def watched(options: Options, prompt: Sequence[int] = (9,), stops: Stops = NO_STOPS, **asked: bool) -> bool:
    return must_be_watched(options, BINDING, prompt, stops, **{"streams": True, "logprobs": False} | asked)


def test_it_is_said_of_every_option_whether_it_needs_watching() -> None:
    assert {field.name for field in fields(Options)} == WATCHED.keys() | FREE.keys()
    assert not watched(Options())
    assert {name for name, given in (WATCHED | FREE).items() if watched(Options(**given))} == WATCHED.keys()


def test_what_else_a_request_asks_for_may_need_watching() -> None:
    assert watched(Options(), prompt=encode("a<Goal>"))
    assert watched(Options(), stops=Stops(strings=("a",)))
    assert not watched(Options(), stops=Stops(tokens=frozenset({9}), min_tokens=5))
    assert not watched(Options(), logprobs=True)
    assert watched(Options(return_tree=True), logprobs=True)
    assert not watched(Options(stream="events"), streams=False)
