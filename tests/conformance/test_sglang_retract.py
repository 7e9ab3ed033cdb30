"""SGLang retracts by itself, too; in tests it can be told to, with slots to spare. Its leak check stays on."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("sglang", reason="it is SGLang that retracts")

from sglang_host import SGLangHost

from multiverse.models import TINY
from multiverse.models.task import Problem
from multiverse.models.tokenizer import turn


def test_what_sglang_retracts_is_accounted_for_at_once_and_computed_again(
    host: SGLangHost, late: bool, tiny: tuple[Any, Any], problems: list[Problem]
) -> None:
    """Also runs whose strand had joined branches: SGLang gave back what these left to it."""
    prompts = [tiny[1].encode(turn(problem)) for problem in problems]
    undisturbed = host.generate(prompts)
    forced = {"SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "20"}
    retracting = SGLangHost(str(TINY), late=late, environment=forced)
    assert [answer.ids for answer in retracting.generate(prompts)] == [answer.ids for answer in undisturbed]
    assert retracting.counters()["replays"] > 5
    assert not any(retracting.leftovers().values()), retracting.leftovers()
