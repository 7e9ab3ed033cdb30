"""What was trained is what is served: a host's log-probabilities against a training forward over its own answers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import pytest
from answer import Answer, Host
from tiers import Sizes

from multiverse.models.task import stream
from multiverse.training.agreement import disagreement
from multiverse.training.encode import render_prompt
from multiverse.training.schema import Example


@pytest.fixture(scope="module")
def examples(sizes: Sizes) -> list[Example]:
    drawn = islice(stream(7, level=0.3), sizes.trained)
    return [Example(p.kind, ({"role": "user", "content": p.prompt},), p.parallel, p.sequential) for p in drawn]


def difference(tiny: tuple[Any, Any], examples: Sequence[Example], answers: Sequence[Answer]) -> float:
    """What the host reported to the training forward; what it wrote itself is reported with 0 and has no target."""
    reported = [[value if value < 0 else None for value in answer.logprobs or []] for answer in answers]
    return disagreement(*tiny, examples, [answer.ids for answer in answers], reported)


def test_100_held_out_answers_have_the_logprobs_of_a_training_forward(
    host: Host, tiny: tuple[Any, Any], examples: list[Example]
) -> None:
    """The answers are encoded from their text like any training data, and packed three to a row."""
    prompts = [tiny[1].encode(render_prompt(tiny[1], example.messages)) for example in examples]
    answers = host.generate(prompts, logprobs=1)
    assert sum(answer.record is not None for answer in answers) > len(examples) // 2
    assert difference(tiny, examples, answers) < 1e-4
    plain = host.generate(prompts[:10], logprobs=1, multiverse={"enabled": False})
    assert difference(tiny, examples[:10], plain) > 0.01  # the same blocks in a plain engine: the comparison sees it
