"""Branches that are held keep their KV: answers of real engines are those of `eager`, token by token.

What is short, aborted or counted meanwhile is tried on each host by itself (`test_vllm_holding.py`,
`test_sglang_holding.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from answer import Answer, Host
from hosts import Engines
from policies import OFF, PAIRS, SLACK

from multiverse.models import TINY
from multiverse.models.task import Problem, generate
from multiverse.models.tokenizer import turn
from multiverse.serving.admission.pace import Pace

POLICIES = {"off": OFF, "cap:1": {"admission": "cap:1"}, "cap:2": PAIRS, "slack": SLACK}


@pytest.fixture(scope="module", autouse=True)
def patience() -> Iterator[None]:
    """What can't be held at all is not tried: let it seem as if it could."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pace, "per_token", math.inf)
        yield


@pytest.fixture(scope="module")
def make(engines: Engines, late: bool, page: int) -> Any:
    def one(policy: str) -> Host:
        made = engines(str(TINY), late=late, page=page, **POLICIES[policy])
        if hasattr(made, "operate"):  # it is in a process of its own
            made.operate("patience")
        return made

    return one


@pytest.fixture(scope="module")
def prompts(tiny: tuple[Any, Any], problems: list[Problem]) -> list[list[int]]:
    return [list(tiny[1].encode(turn(problem))) for problem in problems]


def held(answers: list[Answer]) -> list[float]:
    """Of all branches of the answers, the seconds for which they were held."""
    return [strand.get("held", 0.0) for answer in answers if answer.record for strand in answer.record["tree"]]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("drawn", [{}, {"temperature": 0.9, "seed": 5}], ids=["greedy", "seeded"])
def test_answers_are_those_of_eager(
    make: Any, host: Host, prompts: list[list[int]], policy: str, drawn: dict[str, Any]
) -> None:
    asked = {"multiverse": {"return_tree": True}, **drawn}
    expected = host.generate(prompts, **asked)
    answers = make(policy).generate(prompts, **asked)
    assert [answer.ids for answer in answers] == [answer.ids for answer in expected]
    assert [answer.finish_reason for answer in answers] == [answer.finish_reason for answer in expected]
    assert sum(held(answers)) > 0 == sum(held(expected))
    assert not any(make(policy).leftovers().values())
    assert make(policy).counters()["replays"] == 0


@pytest.mark.long
@pytest.mark.parametrize("policy", POLICIES)
def test_random_requests_are_answered_as_by_eager(make: Any, host: Host, tiny: tuple[Any, Any], policy: str) -> None:
    """Forty at once, twelve times and more."""
    rng = Random(22)
    for _ in range(13):
        each = [(list(tiny[1].encode(turn(generate(rng, held_out=True)))), _drawn(rng)) for _ in range(40)]
        answers, expected = make(policy).generate_each(each), host.generate_each(each)
        assert [answer.ids for answer in answers] == [answer.ids for answer in expected]
    assert not any(make(policy).leftovers().values())


def _drawn(rng: Random) -> dict[str, Any]:
    """Greedy or seeded, and what else may be asked for without a limit that ends a block."""
    sampled = {"temperature": rng.choice((0.7, 1.0)), "top_p": rng.choice((0.9, 1.0)), "seed": rng.randrange(1 << 31)}
    field: dict[str, Any] = rng.choice(({}, {"max_parallel": rng.randint(1, 3)}, {"max_branches": 3}))
    return (sampled if rng.random() < 0.5 else {}) | {"multiverse": field}
