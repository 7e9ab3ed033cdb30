"""A real server with the plugin over HTTP, as an unmodified OpenAI client sees it."""

from __future__ import annotations

import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import OpenAI

from multiverse import Limits, parse_text
from multiverse.models import TINY
from multiverse.models.task import Problem
from multiverse.models.tokenizer import turn
from multiverse.oracle import generate as reference
from multiverse.oracle import load

USED = {"vllm": "vllm:kv_cache_usage_perc", "sglang": "sglang:num_used_tokens"}
"""What a host calls the share, or the number, of KV slots in use."""


@pytest.fixture(scope="module")
def expected(problems: list[Problem]) -> list[tuple[str, int]]:
    """Text and number of tokens of the oracle's answers; the end-of-turn token is counted but not shown."""
    model, tokenizer = load(str(TINY))
    prompts = [tokenizer.encode(turn(problem)) for problem in problems]
    answers = reference(model, tokenizer, prompts, limits=Limits(max_tokens=900))
    return [(tokenizer.decode(answer.ids, skip_special_tokens=True), len(answer.ids)) for answer in answers]


def ask(client: OpenAI, problem: Problem, **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": problem.prompt}]
    return client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_tokens=900, **options)


def test_answers_come_in_document_order_with_every_token_counted(
    client: OpenAI, problems: list[Problem], expected: list[tuple[str, int]]
) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda problem: ask(client, problem), problems))
    assert [(a.choices[0].message.content, a.usage.completion_tokens) for a in answers] == expected
    assert {answer.choices[0].finish_reason for answer in answers} == {"stop"}
    assert any(parse_text(text).blocks for text, _ in expected)


def test_a_stream_adds_up_to_the_answer(
    client: OpenAI, problems: list[Problem], expected: list[tuple[str, int]]
) -> None:
    def streamed(problem: Problem) -> str:
        chunks = ask(client, problem, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(streamed, problems)) == [text for text, _ in expected]


def test_a_client_that_goes_away_leaves_nothing_behind(
    client: OpenAI, host: str, server: str, problems: list[Problem], expected: list[tuple[str, int]]
) -> None:
    for problem in problems[:8]:
        stream = ask(client, problem, stream=True)
        for _, _ in zip(range(12), stream, strict=False):
            pass
        stream.close()
    until = time.monotonic() + 30
    while (left := _gauge(server, USED[host])) and time.monotonic() < until:
        time.sleep(0.5)
        ask(client, problems[0])
    assert left == 0
    assert ask(client, problems[1]).choices[0].message.content == expected[1][0]


def test_max_tokens_is_exact(client: OpenAI, problems: list[Problem]) -> None:
    messages: Any = [{"role": "user", "content": problems[2].prompt}]
    answer = client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_tokens=100)
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (100, "length")


def _gauge(server: str, name: str) -> float:
    text = urllib.request.urlopen(f"{server}/metrics", timeout=10).read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))
