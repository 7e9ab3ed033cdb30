"""Speculative decoding and branches: drafts in every strand change no answer, and take steps out of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm", reason="SGLang's drafts need a GPU")

from answer import Answer
from hosts import Engines
from vllm_drafter import KnownDrafter
from vllm_drafter import drafting as drafting_with
from vllm_host import VLLMHost

from multiverse import Binding, Tag
from multiverse.errors import OptionError, UnsupportedHostError
from multiverse.models import TINY
from multiverse.models.task import KINDS, generate
from multiverse.models.tokenizer import turn
from multiverse_vllm.refusals import refuse_configuration

SETTINGS = drafting_with(KnownDrafter, 8)


@pytest.fixture(scope="module")
def prompts(tiny: tuple[Any, Any]) -> list[list[int]]:
    rng = Random(17)
    return [list(tiny[1].encode(turn(generate(rng, kind, held_out=True)))) for kind in KINDS * 2]


@pytest.fixture(scope="module")
def plain(engines: Engines) -> VLLMHost:
    """A host that does not draft."""
    return engines(str(TINY), late=False)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def expected(plain: VLLMHost, prompts: list[list[int]]) -> list[Answer]:
    return plain.generate(prompts, logprobs=2)


@pytest.fixture
def drafting(engines: Engines, expected: list[Answer], prompts: list[list[int]]) -> Iterator[VLLMHost]:
    """A host that drafts what will be said."""
    KnownDrafter.known = [prompt + answer.ids for prompt, answer in zip(prompts, expected, strict=True)]
    yield engines(str(TINY), settings=SETTINGS)  # type: ignore[misc]
    KnownDrafter.known, KnownDrafter.wrong = [], 0


@pytest.fixture(scope="module")
def prompt(prompts: list[list[int]], expected: list[Answer]) -> list[int]:
    """The one with the longest answer, which nests."""
    return prompts[max(range(len(expected)), key=lambda i: len(expected[i].ids))]


def same(found: list[Answer], expected: list[Answer]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.ids == theirs.ids
        assert ours.finish_reason == theirs.finish_reason
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
        assert [set(entry) for entry in ours.entries or ()] == [set(entry) for entry in theirs.entries or ()]


@pytest.mark.parametrize("wrong", [0, 2, 3, 7])
def test_answers_are_those_without_drafts_however_many_are_wrong(
    drafting: VLLMHost, prompts: list[list[int]], expected: list[Answer], wrong: int
) -> None:
    KnownDrafter.wrong = wrong
    before = drafting.counters()
    found = drafting.generate(prompts, logprobs=2)
    same(found, expected)
    assert not any(drafting.leftovers().values()), drafting.leftovers()
    after = drafting.counters()
    drafted, accepted = (after[name] - before[name] for name in ("draft_tokens", "accepted_draft_tokens"))
    assert 0 < accepted < drafted if wrong else drafted > 500
    told = [answer.record["accepted_draft_tokens"] for answer in found if answer.record]
    assert sum(told) == accepted
    assert all(0 < mine < len(answer.ids) for mine, answer in zip(told, filter(forked, found), strict=True))


def forked(answer: Answer) -> bool:
    return answer.record is not None


def test_drafts_and_branches_multiply(drafting: VLLMHost, plain: VLLMHost, prompt: list[int]) -> None:
    """Alone on the server, with drafts that are right: of a plain answer's steps, of a forking one's, and of both."""
    steps = {
        (drafts, forks): steps_of(host, prompt, forks)
        for drafts, host in ((False, plain), (True, drafting))
        for forks in (False, True)
    }
    assert steps[True, True] < 0.4 * steps[False, True] < 0.4 * steps[False, False]
    assert steps[True, True] < 0.15 * steps[False, False]


def steps_of(host: VLLMHost, prompt: list[int], forks: bool) -> int:
    before = host.steps
    host.generate([prompt], multiverse={"enabled": forks})
    return host.steps - before


@pytest.mark.parametrize("budget", [1, 2, 40, 90, 91, 92, 150, 200])
def test_max_tokens_is_exact_whatever_a_step_brings(drafting: VLLMHost, prompt: list[int], budget: int) -> None:
    (answer,) = drafting.generate([prompt], max_tokens=budget)
    assert (len(answer.ids), answer.finish_reason) == (budget, "length")


def test_a_stop_string_ends_what_it_ends_without_drafts(
    plain: VLLMHost, drafting: VLLMHost, prompts: list[list[int]], expected: list[Answer], tiny: tuple[Any, Any]
) -> None:
    texts = [tiny[1].decode(answer.ids) for answer in expected]
    digits = re.findall(r"= ?\d", " ".join(texts))
    assert digits
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


def test_a_tree_tells_the_same_logprobs(plain: VLLMHost, drafting: VLLMHost, prompts: list[list[int]]) -> None:
    wanted = {"logprobs": 0, "multiverse": {"return_tree": True}}
    for ours, theirs in zip(
        drafting.generate(prompts, **dict(wanted)), plain.generate(prompts, **dict(wanted)), strict=True
    ):
        assert ours.record is not None
        assert theirs.record is not None
        for mine, other in zip(ours.record["tree"], theirs.record["tree"], strict=True):
            assert mine["token_ids"] == other["token_ids"]
            assert mine["logprobs"] == pytest.approx(other["logprobs"], abs=1e-4)


def test_with_little_memory_trees_are_replayed_and_say_the_same(
    engines: Engines, drafting: VLLMHost, prompts: list[list[int]], expected: list[Answer]
) -> None:
    assert drafting.generate(prompts[:1])[0].ids == expected[0].ids
    scarce = engines(str(TINY), blocks=48, settings=SETTINGS)
    KnownDrafter.wrong = 5
    same(scarce.generate(prompts * 2, logprobs=2), expected * 2)
    assert scarce.counters()["replays"] > 0
    assert not any(scarce.leftovers().values())


def test_branches_that_are_held_say_the_same(
    engines: Engines, drafting: VLLMHost, prompts: list[list[int]], expected: list[Answer]
) -> None:
    assert drafting.generate(prompts[:1])[0].ids == expected[0].ids
    KnownDrafter.wrong = 3
    held = engines(str(TINY), settings=SETTINGS, admission="cap:2")
    found = held.generate(prompts, logprobs=2, multiverse={"return_tree": True})
    same(found, expected)
    assert any(strand.get("held") for answer in found for strand in answer.record["tree"])  # type: ignore[index]


def test_a_request_says_how_many_tokens_are_drafted_for_it(drafting: VLLMHost, prompt: list[int]) -> None:
    longest: dict[int | str | None, tuple[int, int, int]] = {}
    for lengths in (0, 2, "1:4,2:1", None):
        before = drafting.counters()["draft_tokens"], drafting.steps
        found = drafting.generate([prompt], multiverse={"drafts": lengths})
        assert found[0].record is not None
        drafted, steps = (now - then for now, then in zip(_counted(drafting), before, strict=True))
        longest[lengths] = drafted, steps, found[0].record["accepted_draft_tokens"]
    assert longest[0][::2] == (0, 0)
    assert longest[None][1] < longest[2][1] < longest["1:4,2:1"][1] < longest[0][1]


def test_a_request_without_blocks_says_so_for_itself_too(drafting: VLLMHost, prompt: list[int]) -> None:
    steps = {}
    for lengths in (0, 2, None):
        before = drafting.steps
        drafting.generate([prompt], max_tokens=60, multiverse={"enabled": False, "drafts": lengths})
        steps[lengths] = drafting.steps - before
    assert steps[None] < steps[2] < steps[0] == 60


def _counted(host: VLLMHost) -> tuple[int, int]:
    return host.counters()["draft_tokens"], host.steps


def test_tags_are_accepted_in_the_midst_of_drafts(
    drafting: VLLMHost, prompts: list[list[int]], binding: Binding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else this file would show nothing of what is dropped behind them."""
    behind = set()
    accept = drafting.scheduler.tokens.accept

    def seen(member: Any, tokens: list[int]) -> Any:
        behind.update(binding.tag(token) for token in tokens[:-1])
        return accept(member, tokens)

    monkeypatch.setattr(drafting.scheduler.tokens, "accept", seen)
    drafting.generate(prompts)
    assert {Tag.GOAL_CLOSE, Tag.PATH_CLOSE, Tag.CONCLUSION_CLOSE} <= behind


def test_who_samples_beside_others_changes_nothing_of_theirs(
    drafting: VLLMHost, prompts: list[list[int]], expected: list[Answer]
) -> None:
    """On a CPU vLLM 0.32 by itself divides all logits of such a batch by numbers that nobody has set."""
    for sampling in ({"temperature": 1.0}, {"temperature": 1.0, "top_k": 3}, {"repetition_penalty": 1.3}):
        requests = [(prompt, {"logprobs": 2}) for prompt in prompts]
        requests += [(prompt, {"max_tokens": 150, "ignore_eos": True} | sampling) for prompt in prompts]
        same(drafting.generate_each(requests)[: len(prompts)], expected)


def test_what_vllm_does_not_sample_with_beside_drafts_is_refused_in_branches_too(drafting: VLLMHost) -> None:
    with pytest.raises(OptionError, match="branch_sampling: min_p can't be set on a server with speculative"):
        drafting.generate([[5, 6]], multiverse={"branch_sampling": {"min_p": 0.1}})
    assert drafting.generate([[5, 6]], max_tokens=3, multiverse={"branch_sampling": {"min_p": 0}})


@pytest.mark.parametrize(
    ("drafts", "v2", "structure", "said"),
    [
        (
            {"method": "eagle3"},
            False,
            "lenient",
            "speculative decoding by 'eagle3' (--speculative-config), possible are ngram, suffix",
        ),
        (
            {"method": "suffix"},
            True,
            "lenient",
            "'suffix' in the V2 model runner (--speculative-config), possible are ngram",
        ),
        ({"method": "ngram"}, False, "strict", "--multiverse-structure strict"),
    ],
)
def test_other_drafts_are_refused_by_name(
    plain: VLLMHost, monkeypatch: pytest.MonkeyPatch, drafts: dict[str, str], v2: bool, structure: str, said: str
) -> None:
    monkeypatch.setenv("MULTIVERSE_STRUCTURE", structure)
    config = vars(plain.scheduler.vllm_config) | {"speculative_config": SimpleNamespace(**drafts)}
    with pytest.raises(UnsupportedHostError, match=re.escape(said)):
        refuse_configuration(SimpleNamespace(**config, use_v2_model_runner=v2))
