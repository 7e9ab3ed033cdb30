"""The program that most tests run: facts that are encoded apart and joined, and what the oracle should see of it."""

from __future__ import annotations

from typing import Any

import pytest
from document_oracle import Items

sgl = pytest.importorskip("sglang", reason="these programs belong to SGLang's environment")

FACTS = ["Ann has 3 apples.", "Ben has 4 pears and a dog.", "Cleo has 7 plums."]


def gen(name: str, tokens: int = 12, **options: Any) -> Any:
    return sgl.gen(name, max_tokens=tokens, temperature=0, return_logprob=True, top_logprobs_num=8, **options)


@sgl.function  # type: ignore[untyped-decorator]
def parallel_encoding(s: Any, question: str, facts: list[str]) -> None:
    """The shape of SGLang's own `test_parallel_encoding`."""
    s += "USER: Read these facts.\n"
    forks = s.fork(len(facts))
    forks += lambda i: f"Fact {i}: {facts[i]}\n"
    forks.join(mode="concate_and_append")
    s += f"Question: {question}\n"
    s += "ASSISTANT:" + gen("answer")


def encoded(question: str) -> Items:
    """What the oracle should see of `parallel_encoding`."""
    branches = [(0, [f"Fact {i}: {fact}\n"]) for i, fact in enumerate(FACTS)]
    return ["USER: Read these facts.\n", branches, f"Question: {question}\nASSISTANT:"]
