"""Branches that are held keep their KV: answers of real engines are those of `eager`, token by token.

What is short, aborted or counted meanwhile is tried in the scheduler alone (`test_vllm_holding.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("vllm", reason="policies are for vLLM so far")

from answer import Answer
from hosts import Engines
from vllm_host import VLLMHost

from multiverse.models import TINY
from multiverse.models.task import Problem
from multiverse.models.tokenizer import turn
from multiverse.serving.admission.pace import Pace

POLICIES = {
    "off": {"admission": "off"},
    "cap:1": {"admission": "cap:1"},
    "cap:2": {"admission": "cap:2"},
    "slack": {"admission": "slack", "tpot_slo_ms": "0.001", "ttft_slo_ms": "0.001"},
}
"""Under this `slack` everybody is late, so branches are held whenever there is anybody else."""


@pytest.fixture(scope="module", autouse=True)
def patience() -> Iterator[None]:
    """What can't be held at all is not tried: let it seem as if it could."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pace, "per_token", math.inf)
        yield


@pytest.fixture(scope="module")
def make(engines: Engines, late: bool) -> Any:
    def one(policy: str, **settings: Any) -> VLLMHost:
        made = engines(str(TINY), late=late, **POLICIES[policy], **settings)
        assert isinstance(made, VLLMHost)
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
    make: Any, host: VLLMHost, prompts: list[list[int]], policy: str, drawn: dict[str, Any]
) -> None:
    asked = {"multiverse": {"return_tree": True}, **drawn}
    expected = host.generate(prompts, **asked)
    answers = make(policy).generate(prompts, **asked)
    assert [answer.ids for answer in answers] == [answer.ids for answer in expected]
    assert [answer.finish_reason for answer in answers] == [answer.finish_reason for answer in expected]
    assert sum(held(answers)) > 0 == sum(held(expected))
    assert not any(make(policy).leftovers().values())
    assert make(policy).counters()["replays"] == 0
