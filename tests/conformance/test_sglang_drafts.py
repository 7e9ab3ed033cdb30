"""Speculative decoding and branches on SGLang: drafts in every strand change no answer, and take steps out of it.

Drafts go through all of SGLang but its corpus of n-grams; what that drafts is tried by the mode "with drafts" of the
suite. On a CPU SGLang verifies greedily, whatever a request asks for, so nothing is sampled here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("sglang", reason="these are SGLang's drafts")

from answer import Answer
from hosts import Engines
from sglang_drafter import drafting as drafting_with
from sglang_host import SGLangHost
from test_answers import TOLERANCE, compare

from multiverse import Binding, Tag
from multiverse.errors import OptionError, UnsupportedHostError
from multiverse.models import TINY
from multiverse.models.task import KINDS, generate
from multiverse.models.tokenizer import turn
from multiverse.serving.options import Options
from multiverse_sglang.refusals import check_drafts, refuse_arguments, refuse_unsupported

MOST = 8
WIDTHS = (2, 3, 7, 16)


@pytest.fixture(scope="module")
def prompts(tiny: tuple[Any, Any]) -> list[list[int]]:
    rng = Random(17)
    return [list(tiny[1].encode(turn(generate(rng, kind, held_out=True)))) for kind in KINDS]


@pytest.fixture(scope="module")
def goals(tiny: tuple[Any, Any]) -> list[list[int]]:
    """Prompts that end with goals of up to 16 outlines."""
    outlines = ["".join(f"<Outline>\n{i}: x\n</Outline>\n" for i in range(1, width + 1)) for width in WIDTHS]
    return [tiny[1].encode(f"<Parallel>\n<Goal>\n{goal}</Goal>") for goal in outlines]


@pytest.fixture(scope="module")
def plain(engines: Engines) -> SGLangHost:
    """A host that does not draft."""
    return engines(str(TINY), late=False)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def expected(plain: SGLangHost, prompts: list[list[int]]) -> list[Answer]:
    return plain.generate(prompts, logprobs=2)


@pytest.fixture(scope="module")
def known(prompts: list[list[int]], expected: list[Answer]) -> list[list[int]]:
    return [prompt + answer.ids for prompt, answer in zip(prompts, expected, strict=True)]


@pytest.fixture
def drafting(engines: Engines, known: list[list[int]]) -> Iterator[SGLangHost]:
    """A host that drafts what will be said."""
    host: Any = engines(str(TINY), late=False, settings=drafting_with(MOST))
    host.operate("draft", known)
    yield host
    host.operate("draft", None)


@pytest.fixture(scope="module")
def prompt(prompts: list[list[int]], expected: list[Answer]) -> list[int]:
    """The one with the longest answer, which nests."""
    return prompts[max(range(len(expected)), key=lambda i: len(expected[i].ids))]


def same(found: list[Answer], expected: list[Answer]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.ids == theirs.ids
        assert ours.finish_reason == theirs.finish_reason
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=TOLERANCE)
        assert [set(entry) for entry in ours.entries or ()] == [set(entry) for entry in theirs.entries or ()]


@pytest.mark.parametrize(
    ("wrong", "forked"),
    [
        (0, False),
        (2, True),
        pytest.param(3, False, marks=pytest.mark.long),
        pytest.param(7, True, marks=pytest.mark.long),
    ],
)
def test_answers_are_those_without_drafts_however_many_are_wrong(
    drafting: SGLangHost,
    prompts: list[list[int]],
    known: list[list[int]],
    expected: list[Answer],
    wrong: int,
    forked: bool,
) -> None:
    """Also where drafts are trees, and the KV of what is accepted is moved to the front of them."""
    drafting.operate("draft", known, wrong, forked)
    before = drafting.counters()
    found = drafting.generate(prompts, logprobs=2)
    same(found, expected)
    assert not any(drafting.leftovers().values()), drafting.leftovers()
    after = drafting.counters()
    drafted, accepted = (after[name] - before[name] for name in ("draft_tokens", "accepted_draft_tokens"))
    assert 0 < accepted < drafted
    told = [answer.record["accepted_draft_tokens"] for answer in found if answer.record]
    assert sum(told) == accepted
    assert all(0 < mine < len(answer.ids) for mine, answer in zip(told, filter(has_record, found), strict=True))


def has_record(answer: Answer) -> bool:
    return answer.record is not None


@pytest.mark.parametrize("page", [1, 16])
def test_two_to_sixteen_branches_are_the_oracles(
    engines: Engines, plain: SGLangHost, goals: list[list[int]], tiny: tuple[Any, Any], binding: Binding, page: int
) -> None:
    """With drafts of SGLang's own, which branches make for each other."""
    host: Any = engines(str(TINY), late=False, page=page, settings=drafting_with(MOST))
    sampling = {"logprobs": 2, "multiverse": {"max_critical_path": 40}}
    theirs, before = plain.generate(goals, **dict(sampling)), host.counters()
    ours = host.generate(goals, **dict(sampling))
    same(ours, theirs)
    assert [answer.record["branches"] for answer in ours if answer.record] == list(WIDTHS)
    for goal, answer in zip(goals, ours, strict=True):
        assert compare(binding, tiny[0], goal, answer).max_difference < TOLERANCE
    after = host.counters()
    assert after["joins"] > before["joins"]
    assert after["accepted_draft_tokens"] > before["accepted_draft_tokens"]
    assert not any(host.leftovers().values()), host.leftovers()


def test_drafts_and_branches_multiply(drafting: SGLangHost, plain: SGLangHost, prompt: list[int]) -> None:
    """Alone on the server, with drafts that are right: of a plain answer's steps, of a forking one's, and of both."""
    steps = {
        (drafts, forks): steps_of(host, prompt, forks)
        for drafts, host in ((False, plain), (True, drafting))
        for forks in (False, True)
    }
    assert steps[True, True] < 0.6 * steps[False, True] < 0.6 * steps[False, False]
    assert steps[True, True] < 0.25 * steps[False, False]


def steps_of(host: SGLangHost, prompt: list[int], forks: bool) -> int:
    host.forwards()
    host.generate([prompt], multiverse={"enabled": forks})
    return len(host.forwards())


@pytest.mark.parametrize("budget", [1, 2, 40, 90, 91, 92, 150, 200])
def test_max_tokens_is_exact_whatever_a_step_brings(drafting: SGLangHost, prompt: list[int], budget: int) -> None:
    (answer,) = drafting.generate([prompt], max_tokens=budget, logprobs=0)
    assert (len(answer.ids), answer.finish_reason) == (budget, "length")
    assert len(answer.logprobs or ()) == budget
    assert not any(drafting.leftovers().values()), drafting.leftovers()


def test_a_stop_string_ends_what_it_ends_without_drafts(
    plain: SGLangHost,
    drafting: SGLangHost,
    prompts: list[list[int]],
    expected: list[Answer],
    tiny: tuple[Any, Any],
) -> None:
    digits = re.findall(r"= ?\d", " ".join(tiny[1].decode(answer.ids) for answer in expected))
    for stop in (digits[0], digits[-1], "\n"):
        wanted = {"stop": [stop], "logprobs": 0, "multiverse": {"return_tree": True}}
        ours, theirs = (host.generate(prompts, **dict(wanted)) for host in (drafting, plain))
        same(ours, theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert strands(mine) == strands(other)


def strands(answer: Answer) -> Any:
    assert answer.record is not None
    kept = ("key", "token_ids", "positions", "finish_reason", "fallbacks")
    return [{name: entry[name] for name in kept} for entry in answer.record["tree"]]


def test_a_tree_tells_the_same_logprobs(plain: SGLangHost, drafting: SGLangHost, prompts: list[list[int]]) -> None:
    wanted = {"logprobs": 0, "multiverse": {"return_tree": True}}
    for ours, theirs in zip(
        drafting.generate(prompts, **dict(wanted)), plain.generate(prompts, **dict(wanted)), strict=True
    ):
        assert ours.record is not None
        assert theirs.record is not None
        for mine, other in zip(ours.record["tree"], theirs.record["tree"], strict=True):
            assert mine["token_ids"] == other["token_ids"]
            assert mine["logprobs"] == pytest.approx(other["logprobs"], abs=TOLERANCE)


def test_requests_that_do_not_fork_are_answered_beside(
    drafting: SGLangHost, plain: SGLangHost, prompts: list[list[int]], expected: list[Answer]
) -> None:
    off = {"logprobs": 2, "multiverse": {"enabled": False}}
    sequential = plain.generate(prompts, **dict(off))
    found = drafting.generate_each([(one, dict(asked)) for one in prompts for asked in (off, {"logprobs": 2})])
    same(found[::2], sequential)
    same(found[1::2], expected)


@pytest.mark.parametrize("page", [pytest.param(1, marks=pytest.mark.long), 16])
def test_trees_that_sglang_retracts_are_replayed_and_say_the_same(
    engines: Engines, prompts: list[list[int]], known: list[list[int]], expected: list[Answer], page: int
) -> None:
    host: Any = engines(str(TINY), late=False, page=page, settings=drafting_with(MOST))
    host.operate("draft", known, 5)
    host.operate("retract", 9)
    before = host.counters()["replays"]
    same(host.generate(prompts, logprobs=2), expected)
    host.operate("retract", 0)
    host.operate("draft", None)
    assert host.counters()["replays"] > before
    assert not any(host.leftovers().values()), host.leftovers()


def test_tags_are_accepted_in_the_midst_of_drafts(
    drafting: SGLangHost, prompts: list[list[int]], binding: Binding
) -> None:
    """Else this file would show nothing of what is dropped behind them."""
    drafting.operate("accepted_before_others")
    drafting.generate(prompts)
    tags = {binding.tag(token) for token in drafting.operate("accepted_before_others")}
    assert {Tag.GOAL_CLOSE, Tag.PATH_CLOSE, Tag.CONCLUSION_CLOSE} <= tags


@pytest.mark.parametrize("kind", ["EAGLE", "EAGLE3", "STANDALONE", "DFLASH"])
def test_models_that_draft_are_refused_by_name(kind: str) -> None:
    from sglang_stepper import server_arguments

    arguments = server_arguments(str(TINY))
    arguments.speculative_algorithm = kind
    with pytest.raises(UnsupportedHostError, match=rf"speculative decoding by '{kind}' \(--speculative-algorithm\)"):
        refuse_arguments(arguments)


@pytest.mark.parametrize(
    ("options", "overlap", "said"),
    [
        (Options(), True, "--disable-overlap-schedule"),
        (Options(structure="strict"), False, "--multiverse-structure strict"),
        (Options(admission="cap:2"), False, "--multiverse-admission cap:2"),
    ],
)
def test_what_can_not_be_beside_drafts_is_refused_by_name(options: Options, overlap: bool, said: str) -> None:
    from test_sglang_config import a_scheduler

    scheduler = a_scheduler({"rope_type": "llama3"})
    scheduler.enable_overlap = overlap
    refuse_unsupported(scheduler, options)
    scheduler.spec_algorithm = SimpleNamespace(is_none=lambda: False)
    with pytest.raises(UnsupportedHostError, match=re.escape(said)):
        refuse_unsupported(scheduler, options)


@pytest.mark.parametrize("asked", [{"structure": "strict"}, {"drafts": 2}])
def test_what_a_request_can_not_have_beside_drafts_is_refused_by_name(asked: dict[str, Any]) -> None:
    check_drafts(Options())
    with pytest.raises(OptionError, match=next(iter(asked))):
        check_drafts(Options(**asked))
