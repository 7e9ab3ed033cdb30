"""The typed OpenAI client and what our servers add to the chunks of a stream. Both environments of hosts have one:
vLLM's the newest release, SGLang's the oldest that is in use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from openai import OpenAI
from sse import chunk, streaming

OPENAI = ("openai", "2.8.0", "3.57.0")
MESSAGES: Any = [{"role": "user", "content": "?"}]


def event(kind: str) -> dict[str, Any]:
    return {"events": [{"kind": kind, "key": [], "label": ""}]}


@contextmanager
def client(chunks: Sequence[dict[str, Any]]) -> Iterator[OpenAI]:
    with streaming(chunks) as url, OpenAI(base_url=url, api_key="none", max_retries=0) as made:
        yield made


def accumulated(asked: OpenAI, **options: Any) -> Any:
    with asked.chat.completions.stream(model="m", messages=MESSAGES, **options) as stream:
        return stream.get_final_completion()


@pytest.mark.contract(*OPENAI, ours="docs/api.md")
def test_a_created_stream_keeps_what_each_chunk_has_of_ours() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "multiverse": {"blocks": 1}}
    sent = [chunk(1, "b"), chunk(0, "", multiverse=event("fork")), chunk(0, "", multiverse=event("join"))]
    with client([*sent, chunk(0, "a") | {"choices": [], "usage": usage}]) as asked:
        got = list(asked.chat.completions.create(model="m", messages=MESSAGES, stream=True, n=2))
    extras = [choice.model_extra or {} for part in got for choice in part.choices]
    assert [extra["multiverse"] for extra in extras if extra] == [event("fork"), event("join")]
    assert got[-1].usage is not None
    assert got[-1].usage.model_extra == {"multiverse": {"blocks": 1}}


@pytest.mark.contract(*OPENAI, ours="docs/api.md")
def test_the_accumulating_stream_has_ours_of_the_first_chunk_only() -> None:
    sent = [chunk(0, "a", multiverse=event("fork")), chunk(0, "b", multiverse=event("join"))]
    with client([*sent, chunk(0, "", finish_reason="stop")]) as asked:
        answer = accumulated(asked)
    assert answer.choices[0].message.content == "ab"
    assert answer.choices[0].multiverse == event("fork")


@pytest.mark.contract(*OPENAI, ours="docs/api.md")
def test_the_accumulating_stream_fails_if_the_second_choice_comes_first() -> None:
    ends = [chunk(0, "", finish_reason="stop"), chunk(1, "", finish_reason="stop")]
    with client([chunk(1, "b"), chunk(0, "a"), *ends]) as asked, pytest.raises(IndexError):
        accumulated(asked, n=2)
