"""SGLang retracts by itself, too; in tests it can be told to, with slots to spare. Its leak check stays on."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

pytest.importorskip("sglang", reason="it is SGLang that retracts")

from hosts import Engines
from sglang_host import SGLangHost
from sglang_steps import advance, finish

from multiverse.models import TINY
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


SEEDS = (0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 16)))


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_is_aborted_for_want_of_slots_that_trees_hold(engines: Engines, seed: int) -> None:
    """Whose branches are held and who waits for slots within a branch has most of them; SGLang aborts the last request
    of its batch that finds none, as if nobody else could give any back."""
    host = engines(str(TINY), blocks=34, late=False, admission="off", shapes="accept")
    rng, requests = Random(seed), []
    for _ in range(rng.randint(2, 5)):
        asked: dict[str, Any]
        if rng.random() < 0.5:
            length, others, said = rng.choice((50, 200, 300)), rng.choice((3, 4, 6)), rng.choice((40, 60))
            shape = [4, [[10, [[20], [20]], 5], *[[said]] * others], 4]
            asked = {"multiverse": {"shape": shape}, "max_tokens": 1000 - length}
        else:
            length, asked = 20, {"max_tokens": rng.choice((200, 500, 900)), "ignore_eos": True}
        requests.append(host.start([rng.randrange(40, 90) for _ in range(length)], **asked))
        advance(host, rng.choice((0, 0, 5, 30)))
    assert {answer.finish_reason for answer in finish(host, requests)} == {"length"}
