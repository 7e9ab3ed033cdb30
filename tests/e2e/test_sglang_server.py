"""`sgl.function` programs against a real `sglang serve --plugin multiverse`."""

from __future__ import annotations

from typing import Any

import pytest

from multiverse import Limits
from multiverse.models import TINY
from multiverse.models.task import Problem
from multiverse.models.tokenizer import turn
from multiverse.oracle import generate as reference
from multiverse.oracle import load

pytest.importorskip("sglang", reason="this server belongs to SGLang's environment")


@pytest.fixture(scope="module")
def expected(problems: list[Problem]) -> list[str]:
    """Texts of the oracle's answers."""
    model, tokenizer = load(str(TINY))
    prompts = [tokenizer.encode(turn(problem)) for problem in problems]
    answers = reference(model, tokenizer, prompts, limits=Limits(max_tokens=900))
    return [tokenizer.decode(answer.ids, skip_special_tokens=True) for answer in answers]


def test_a_program_of_the_front_end_gets_the_whole_tree(
    server: str, problems: list[Problem], expected: list[str]
) -> None:
    """`s += sgl.gen(...)` on a model that forks by itself: nothing to change in the program."""
    import sglang as sgl

    @sgl.function  # type: ignore[untyped-decorator]
    def solve(s: Any, question: str) -> None:
        s += question + sgl.gen("answer", max_tokens=900, temperature=0)

    backend = sgl.RuntimeEndpoint(server)
    states = solve.run_batch(
        [{"question": turn(problem)} for problem in problems], backend=backend, num_threads=8, progress_bar=False
    )
    assert [state["answer"] for state in states] == expected
