"""What answers are worth: a shorter critical path counts if the answer is right, and branches for show gain nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_rollouts import BINDING, Host, answer, rollout
from toy import decode, encode

from multiverse import Controller, Limits
from multiverse.errors import TrainingError
from multiverse.training.grpo.answer import Answer
from multiverse.training.grpo.rewards import Rewards, advantages, shorter
from multiverse.training.grpo.settings import Term
from multiverse.training.prompts import Prompt

PROBLEM = Prompt("p", ({"role": "user", "content": "ab"},), "h", True)
WORK = "abcdefgh" * 4


def judged(host: Host, right: bool = True) -> Answer:
    found = rollout(host)
    sampled = [[t for t, w in zip(s.token_ids, s.injected, strict=True) if not w] for s in found.strands]
    said = tuple(decode([token for token in ids if token not in BINDING.tags]) for ids in sampled)
    return Answer(PROBLEM, found, "", said, right, BINDING)


def plain(text: str, right: bool = True) -> Answer:
    host = Host(Controller(BINDING, Limits(), encode("ab")))
    host.feed(host.root, f"{text}<eos>")
    return judged(host, right)


SEQUENTIAL = plain(WORK + WORK + WORK)
PARALLEL = judged(answer(WORK, WORK, WORK))


def test_the_answer_that_does_its_work_in_branches_is_worth_more() -> None:
    assert PARALLEL.tokens > SEQUENTIAL.tokens
    assert PARALLEL.critical_path < SEQUENTIAL.critical_path
    low, high = shorter([SEQUENTIAL, PARALLEL])
    assert low == 0
    assert 0 < high <= 0.25
    assert shorter([SEQUENTIAL, PARALLEL], cap=0.01) == [0, 0.01]


def test_a_short_answer_that_is_wrong_gets_nothing_nor_does_it_take_from_others() -> None:
    hasty, long = plain("a", right=False), plain(WORK * 9, right=False)
    assert shorter([SEQUENTIAL, PARALLEL, hasty, long])[2:] == [0, 0]
    assert shorter([SEQUENTIAL, PARALLEL, hasty, long])[:2] == shorter([SEQUENTIAL, PARALLEL])
    assert shorter([hasty, long]) == [0, 0]


@given(st.lists(st.sampled_from(["", "a", WORK]), min_size=2, max_size=6), st.sampled_from(["", WORK]))
def test_branches_for_show_are_worth_nothing(bodies: list[str], after: str) -> None:
    """All of the answer is said outside: however many branches there are, and whatever they say, the path is longer."""
    honest = plain("c" + after + WORK)
    farmed = judged(answer(*bodies, after=after + WORK + "<eos>"))
    assert farmed.critical_path > honest.critical_path
    alone, forked = shorter([honest, farmed])
    assert forked == 0 <= alone
    assert advantages(shorter([honest, farmed]), scale=True)[1] <= 0


def test_branches_that_say_nothing_or_the_same_again_are_counted() -> None:
    assert PARALLEL.spurious == 2, "three branches that say the same"
    assert judged(answer("a", "b", "", " ")).spurious == 2
    assert judged(answer("a", "b")).spurious == 0
    assert SEQUENTIAL.spurious == SEQUENTIAL.branches == 0


def test_well_formed_is_what_was_forked_and_ended() -> None:
    assert PARALLEL.well_formed
    assert SEQUENTIAL.well_formed
    assert not judged(answer("a", "b", after="</Path><eos>")).well_formed
    assert not judged(answer("a", "b", after="gh")).well_formed, "its turn was not ended"
    host = Host(Controller(BINDING, Limits(max_branches=2), encode("ab")))
    host.feed(host.root, "<Parallel><Goal><Outline>1:a</Outline></Goal>c<eos>")
    assert not judged(host).well_formed, "a goal that was not forked"


def longer(answers: list[Answer], by: float = 1.0) -> list[float]:
    return [by * each.tokens for each in answers]


def test_rewards_are_summed_by_name_or_as_any_function() -> None:
    own = Term(f"{__name__}:longer", 0.5, {"by": 2.0})
    rewards = Rewards([Term("answer"), Term("well_formed", 0.1), own])
    wrong = plain("a", right=False)
    assert rewards([SEQUENTIAL, wrong]) == [1.1 + SEQUENTIAL.tokens, 0.1 + wrong.tokens]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("shortness", "known are answer, well_formed, shorter"),
        ("nowhere:f", "No module named 'nowhere'"),
        ("json:f", "no attribute 'f'"),
    ],
)
def test_a_reward_that_is_none_is_named(name: str, reason: str) -> None:
    with pytest.raises(TrainingError, match=f"{name}.*{reason}"):
        Rewards([Term(name)])


def test_a_reward_gives_a_number_for_each_answer() -> None:
    with pytest.raises(TrainingError, match="gave 1 numbers for 2 answers"):
        Rewards([Term(f"{__name__}:of_the_first")])([SEQUENTIAL, PARALLEL])


def of_the_first(answers: list[Answer]) -> list[float]:
    return longer(answers[:1])


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.booleans())
def test_advantages_are_about_the_mean_of_the_group(rewards: list[float], scale: bool) -> None:
    found = advantages(rewards, scale)
    assert abs(sum(found)) < 1e-6
    if any(found) and scale:
        assert sum(each**2 for each in found) / len(found) == pytest.approx(1)
    assert advantages([rewards[0]] * 3, scale) == [0, 0, 0]
