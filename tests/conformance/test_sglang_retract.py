"""SGLang retracts by itself, too; in tests it can be told to, with slots to spare. Its leak check stays on."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("sglang", reason="it is SGLang that retracts")

from sglang_host import SGLangHost

from multiverse.models.task import Problem
from multiverse.models.tokenizer import turn


def test_what_sglang_retracts_is_accounted_for_at_once_and_computed_again(
    host: SGLangHost, tiny: tuple[Any, Any], problems: list[Problem]
) -> None:
    """Also runs whose strand had joined branches: SGLang gave back what these left to it."""
    prompts = [tiny[1].encode(turn(problem)) for problem in problems]

    def scheduled() -> tuple[list[list[int]], int, int, int]:
        """The answers; tokens that were computed for them, those of them that were computed again, and replays."""
        host.flush()
        before = host.counters()
        answers = [answer.ids for answer in host.generate(prompts)]
        after = host.counters()
        return answers, *(after[name] - before[name] for name in ("scheduled", "recomputed_tokens", "replays"))

    expected, once, *_ = scheduled()
    host.operate("retract", 20)
    answers, more, again, replays = scheduled()
    host.operate("retract", 0)
    assert answers == expected
    assert replays > 5
    assert not any(host.leftovers().values()), host.leftovers()
    assert 0.8 * (more - once) < again <= more - once  # what is retracted before it forks is SGLang's to count
