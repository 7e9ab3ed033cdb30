"""What a rehearsal finds out, on a host of a few lines whose logprobs follow from tokens and positions."""

from __future__ import annotations

import logging

import pytest
from toy import BINDINGS

from multiverse import Limits, Status
from multiverse.errors import UnsupportedHostError
from multiverse.serving.options import Options
from multiverse.serving.rehearsal import Played, length, rehearse, rehearse_before_serving
from multiverse.serving.support import Support
from multiverse.structure.binding import Binding

NEXT = 9
"""What the model always says: a letter."""


def logprob(token: int, position: int) -> float:
    return -1.0 - (position * 7 + token) % 11


class ToyHost:
    """A host that can be told what to do wrongly."""

    name = "Toy"
    vocabulary = 30

    def __init__(self, binding: Binding, block: int) -> None:
        self.binding, self.block, self.caches = binding, block, True
        self.context, self.made_up, self.obstacle, self.wrong = 4096, False, None, ""
        self.asked: list[int] = []
        self._found = 0

    def play(self, prompt: list[int], options: Options, max_tokens: int) -> Played:
        controller = options.controller(self.binding, Limits(max_tokens=max_tokens), prompt, None)
        controller.begin()
        again = bool(controller.prompt.strand.forks)
        structured = again or bool(controller.root.forks)
        self._found += len(prompt) - 1 if again and self.wrong != "cache" else 0
        off = {"plain": not structured, "splice": structured and not again, "again": again}.get(self.wrong, False)
        said: dict[tuple[object, int], float] = {}
        while controller.finish_reason is None:
            for strand in [one for one in controller.root.walk() if one.status is Status.RUNNING]:
                offset, position = len(strand.tokens), strand.position
                controller.accept(strand, NEXT)
                if strand.tokens[offset : offset + 1] == [NEXT]:
                    said[strand.key, offset] = logprob(NEXT, position + off)
        spans = [(s, at) for s, start, end in controller.root.spans() for at in range(start, end)]
        self.asked.append(len(prompt) + len(spans))
        return Played([s.tokens[at] for s, at in spans], [said.get((s.key, at), 0.0) for s, at in spans])

    def score(self, tokens: list[int]) -> list[float]:
        return [logprob(token, position) for position, token in enumerate(tokens)][1:]

    def found(self) -> int:
        return self._found

    def left(self) -> list[str]:
        return ["blocks: 1 left"] if self.wrong == "left" else []


@pytest.fixture(params=[(name, block) for name in ("multiverse", "npr") for block in (16, 32, 128)])
def host(request: pytest.FixtureRequest) -> ToyHost:
    name, block = request.param
    return ToyHost(BINDINGS[name], block)


def test_a_host_that_does_it_rightly_passes_and_needs_no_longer_context_than_said(host: ToyHost) -> None:
    assert "0 nats off" in rehearse(host)
    assert len(host.asked) == 5
    assert max(host.asked) <= length(host.block)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("plain", "a rehearsed request that never forks differs"),
        ("splice", "a rehearsed fork and splice differs"),
        ("again", "a rehearsed tree that comes again differs"),
        ("cache", "of a rehearsed tree that comes again 0 tokens are in the prefix cache"),
        ("left", "leaves something over (blocks: 1 left)"),
    ],
)
def test_what_is_wrong_is_said(host: ToyHost, wrong: str, said: str) -> None:
    host.wrong = wrong
    with pytest.raises(UnsupportedHostError) as refused:
        rehearse(host)
    assert said in str(refused.value)
    assert str(refused.value).count("rehears") == (2 if wrong == "splice" else 1)  # what is spliced may come again
    assert "this Toy, or this model" in str(refused.value)


def test_positions_that_are_not_heeded_show(host: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run with shifted positions has to differ: else nothing would show what positions do."""
    monkeypatch.setitem(globals(), "logprob", lambda token, _: -1.0 - 0.1 * token)
    host.score = lambda tokens: [-0.9 - 0.1 * token for token in tokens][1:]  # type: ignore[method-assign]
    with pytest.raises(UnsupportedHostError, match="with shifted positions"):
        rehearse(host)


def test_without_a_prefix_cache_nothing_has_to_be_found(host: ToyHost) -> None:
    host.caches, host.wrong = False, "cache"
    rehearse(host)


def test_where_joined_text_is_prefilled_there_is_no_splice_to_be_found() -> None:
    host = ToyHost(BINDINGS["threadweaver"], 32)
    assert host.binding.dialect.join == "prefill"
    host.wrong = "cache"
    rehearse(host)


def test_who_can_not_rehearse_may_serve_only_in_a_tested_release(caplog: pytest.LogCaptureFixture) -> None:
    host, logger = ToyHost(BINDINGS["multiverse"], 32), logging.getLogger("test")
    tested, untested = (Support("Toy", version, ("1.*",), tries=True) for version in ("1.0", "2.0"))
    with caplog.at_level(logging.INFO):
        assert rehearse_before_serving(host, tested, logger)
        assert not [record for record in caplog.records if record.levelno == logging.WARNING]
        assert rehearse_before_serving(host, untested, logger)
    assert "Toy 2.0 was never tested and runs because of --multiverse-untested-host" in caplog.text
    for host.context, host.made_up, host.obstacle in [
        (length(32) - 1, False, None),
        (4096, True, None),
        (4096, False, "ranks step together"),
    ]:
        assert not rehearse_before_serving(host, tested, logger)
        with pytest.raises(UnsupportedHostError, match="has to rehearse, and can't"):
            rehearse_before_serving(host, untested, logger)
