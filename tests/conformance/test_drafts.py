"""Speculative decoding and branches: drafts in every strand change no answer, and take steps out of it.

On SGLang drafts go through all of it but its corpus of n-grams; what that drafts is tried by the mode "with drafts" of
the suite, and by the wide blocks here. On a CPU SGLang verifies greedily, whatever a request asks for.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from answer import Answer, Host
from drafter import MOST, ON_VLLM, accepted_before_others, draft, row_drafts, same
from hosts import Engines
from test_answers import TOLERANCE, compare

from multiverse import Binding, Tag
from multiverse.models import TINY

WIDTHS = (2, 3, 7, 16)
LEFT = (0.4, 0.15) if ON_VLLM else (0.6, 0.25)
"""Steps beside drafts that are right: at most these of a forking answer's, and of a plain one's. SGLang verifies a
tree of as many nodes as are drafted, its last token among them."""
FORKED = not ON_VLLM
"""Whether drafts can be trees, of which what is accepted has its KV moved to the front."""


@pytest.fixture(scope="module")
def goals(tiny: tuple[Any, Any]) -> list[list[int]]:
    """Prompts that end with goals of up to 16 outlines."""
    outlines = ["".join(f"<Outline>\n{i}: x\n</Outline>\n" for i in range(1, width + 1)) for width in WIDTHS]
    return [tiny[1].encode(f"<Parallel>\n<Goal>\n{goal}</Goal>") for goal in outlines]


@pytest.mark.parametrize(
    ("wrong", "forked"),
    [
        (0, False),
        (2, FORKED),
        pytest.param(3, False, marks=pytest.mark.long),
        pytest.param(7, FORKED, marks=pytest.mark.long),
    ],
)
def test_answers_are_those_without_drafts_however_many_are_wrong(
    drafting: Host,
    task_prompts: list[list[int]],
    undrafted_answers: list[Answer],
    known: list[list[int]],
    wrong: int,
    forked: bool,
) -> None:
    draft(drafting, known, wrong, forked)
    before = drafting.counters()
    found = drafting.generate(task_prompts, logprobs=2)
    same(found, undrafted_answers)
    assert not any(drafting.leftovers().values()), drafting.leftovers()
    after = drafting.counters()
    drafted, accepted = (after[name] - before[name] for name in ("draft_tokens", "accepted_draft_tokens"))
    assert 0 < accepted < drafted if wrong else drafted > 250
    records = [(answer.record, len(answer.ids)) for answer in found if answer.record]
    told = [record["accepted_draft_tokens"] for record, _ in records]
    assert sum(told) == accepted
    assert all(0 < mine < length for mine, (_, length) in zip(told, records, strict=True))


@pytest.mark.parametrize("page", [1] if ON_VLLM else [1, 16])
def test_two_to_sixteen_branches_are_the_oracles(
    engines: Engines, undrafted: Host, goals: list[list[int]], tiny: tuple[Any, Any], binding: Binding, page: int
) -> None:
    """With drafts from what was said, in SGLang by other branches, too."""
    host = engines(str(TINY), late=False, page=page, **row_drafts(MOST))
    sampling = {"logprobs": 2, "multiverse": {"max_critical_path": 40}}
    theirs, before = undrafted.generate(goals, **dict(sampling)), host.counters()
    ours = host.generate(goals, **dict(sampling))
    same(ours, theirs)
    assert [answer.record["branches"] for answer in ours if answer.record] == list(WIDTHS)
    for goal, answer in zip(goals, ours, strict=True):
        assert compare(binding, tiny[0], goal, answer).max_difference < TOLERANCE
    after = host.counters()
    assert after["joins"] > before["joins"]
    assert after["accepted_draft_tokens"] > before["accepted_draft_tokens"]
    assert not any(host.leftovers().values()), host.leftovers()


def test_drafts_and_branches_multiply(drafting: Host, undrafted: Host, longest_prompt: list[int]) -> None:
    """Alone on the server, with drafts that are right: of a plain answer's steps, of a forking one's, and of both."""
    steps = {
        (drafts, forks): steps_of(host, longest_prompt, forks)
        for drafts, host in ((False, undrafted), (True, drafting))
        for forks in (False, True)
    }
    to_forking, to_plain = LEFT
    assert steps[True, True] < to_forking * steps[False, True] < to_forking * steps[False, False]
    assert steps[True, True] < to_plain * steps[False, False]


def steps_of(host: Host, prompt: list[int], forks: bool) -> int:
    before = host.steps
    host.generate([prompt], multiverse={"enabled": forks})
    return host.steps - before


@pytest.mark.parametrize("budget", [1, 2, 40, 90, 91, 92, 150, 200])
def test_max_tokens_is_exact_whatever_a_step_brings(drafting: Host, longest_prompt: list[int], budget: int) -> None:
    (answer,) = drafting.generate([longest_prompt], max_tokens=budget, logprobs=0)
    assert (len(answer.ids), answer.finish_reason) == (budget, "length")
    assert len(answer.logprobs or ()) == budget
    assert not any(drafting.leftovers().values()), drafting.leftovers()


def test_a_stop_string_ends_what_it_ends_without_drafts(
    undrafted: Host,
    drafting: Host,
    task_prompts: list[list[int]],
    undrafted_answers: list[Answer],
    tiny: tuple[Any, Any],
) -> None:
    digits = re.findall(r"= ?\d", " ".join(tiny[1].decode(answer.ids) for answer in undrafted_answers))
    for stop in (digits[0], digits[-1], "\n"):
        wanted = {"stop": [stop], "logprobs": 0, "multiverse": {"return_tree": True}}
        ours, theirs = (host.generate(task_prompts, **dict(wanted)) for host in (drafting, undrafted))
        same(ours, theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert strands(mine) == strands(other)


def strands(answer: Answer) -> Any:
    assert answer.record is not None
    kept = ("key", "token_ids", "positions", "finish_reason", "fallbacks")
    return [{name: entry[name] for name in kept} for entry in answer.record["tree"]]


def test_a_tree_tells_the_same_logprobs(undrafted: Host, drafting: Host, task_prompts: list[list[int]]) -> None:
    wanted = {"logprobs": 0, "multiverse": {"return_tree": True}}
    ours, theirs = (host.generate(task_prompts, **dict(wanted)) for host in (drafting, undrafted))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.record is not None
        assert other.record is not None
        for one, another in zip(mine.record["tree"], other.record["tree"], strict=True):
            assert one["token_ids"] == another["token_ids"]
            assert one["logprobs"] == pytest.approx(another["logprobs"], abs=TOLERANCE)


def test_requests_that_do_not_fork_are_answered_beside(
    drafting: Host, undrafted: Host, task_prompts: list[list[int]], undrafted_answers: list[Answer]
) -> None:
    off = {"logprobs": 2, "multiverse": {"enabled": False}}
    sequential = undrafted.generate(task_prompts, **dict(off))
    found = drafting.generate_each([(one, dict(asked)) for one in task_prompts for asked in (off, {"logprobs": 2})])
    same(found[::2], sequential)
    same(found[1::2], undrafted_answers)


def test_tags_are_accepted_in_the_midst_of_drafts(
    drafting: Host, task_prompts: list[list[int]], binding: Binding
) -> None:
    """Else this file would show nothing of what is dropped behind them."""
    accepted_before_others(drafting)
    drafting.generate(task_prompts)
    tags = {binding.tag(token) for token in accepted_before_others(drafting)}
    assert {Tag.GOAL_CLOSE, Tag.PATH_CLOSE, Tag.CONCLUSION_CLOSE} <= tags
