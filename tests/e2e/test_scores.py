"""Scores of given tokens over HTTP: `echo` with `logprobs` on both hosts, vLLM's `prompt_logprobs` in a chat."""

from __future__ import annotations

import math
from typing import Any

import pytest
from openai import OpenAI
from test_surface import templated

from multiverse import bind, parse_ids
from multiverse.models import TINY
from multiverse.models.task import Problem
from multiverse.oracle import load, rate
from multiverse.structure.layout import layout


@pytest.fixture(scope="module")
def scored(problems: list[Problem]) -> tuple[str, list[float | None]]:
    """A turn with nested blocks and the next question as one prompt, and the oracle's score of each of its tokens."""
    model, tokenizer = load(str(TINY))
    prompt = templated(problems[2]) + problems[2].parallel + "<|im_end|>\n" + templated(problems[1])
    ids = tokenizer.encode(prompt)
    scores = rate(model, ids, layout(parse_ids(ids, bind("multiverse", tokenizer))))
    return prompt, [None if math.isnan(score) else score for score in scores]


def assert_scores(found: list[float | None], expected: list[float | None]) -> None:
    assert [value is None for value in found] == [value is None for value in expected]
    assert [v for v in found if v is not None] == pytest.approx([v for v in expected if v is not None], abs=1e-4)


@pytest.mark.parametrize("max_tokens", [0, 1, 300])
def test_a_prompt_with_blocks_is_echoed_with_the_score_of_each_token(
    client: OpenAI, host: str, scored: tuple[str, list[float | None]], max_tokens: int
) -> None:
    if max_tokens == 0 and host == "sglang":
        pytest.skip("SGLang's completions begin with one token; its /generate with none is in tests/conformance")
    prompt, expected = scored
    options: Any = {"model": "tiny", "temperature": 0, "max_tokens": max_tokens, "echo": True, "logprobs": 2}
    answer = client.completions.create(prompt=prompt, **options)
    (choice,) = answer.choices
    assert choice.text.startswith(prompt)
    assert choice.logprobs is not None
    assert choice.logprobs.token_logprobs is not None
    assert_scores(choice.logprobs.token_logprobs[: len(expected)], expected)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(expected)
    generated = 0 if max_tokens == 0 else answer.usage.completion_tokens
    assert len(choice.logprobs.token_logprobs) == len(choice.logprobs.tokens or ()) == len(expected) + generated
    assert len(choice.logprobs.top_logprobs or ()) == len(expected) + generated


def test_a_stream_echoes_them_as_well(client: OpenAI, scored: tuple[str, list[float | None]]) -> None:
    prompt, expected = scored
    options: Any = {"model": "tiny", "temperature": 0, "max_tokens": 60, "echo": True, "logprobs": 1, "stream": True}
    found: list[float | None] = []
    text = ""
    for chunk in client.completions.create(prompt=prompt, **options):
        for choice in chunk.choices:
            text += choice.text
            if choice.logprobs is not None:
                found += choice.logprobs.token_logprobs or []
    assert text.startswith(prompt)
    assert_scores(found[: len(expected)], expected)
    assert len(found) == len(expected) + 60


def test_a_chat_has_an_entry_for_each_token_of_its_prompt(client: OpenAI, host: str, problems: list[Problem]) -> None:
    if host != "vllm":
        pytest.skip("SGLang's chat API has no scores of the prompt")
    messages: Any = [
        {"role": "user", "content": problems[2].prompt},
        {"role": "assistant", "content": problems[2].parallel},
        {"role": "user", "content": problems[1].prompt},
    ]
    options: Any = {"model": "tiny", "temperature": 0, "max_tokens": 300, "extra_body": {"prompt_logprobs": 1}}
    answer: Any = client.chat.completions.create(messages=messages, **options)
    assert len(answer.prompt_logprobs) == answer.usage.prompt_tokens
    blocks = problems[2].parallel.count("<Conclusion>")
    assert answer.prompt_logprobs.count(None) == 1 + blocks > 2
