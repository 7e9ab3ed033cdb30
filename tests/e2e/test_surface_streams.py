"""Streams as clients see them: events of branches, and the document beside them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asking import ask
from openai import OpenAI

from multiverse.client import AsyncClient, Client
from multiverse.models.task import Problem
from multiverse.wire.events import Branch


@pytest.fixture(scope="module")
def events_client(server: str) -> Any:
    with Client(f"{server}/v1") as client:
        yield client


def test_a_stream_of_events_grows_into_the_answer(
    client: OpenAI, events_client: Client, problems: list[Problem]
) -> None:
    for problem in problems[:4]:
        whole = ask(client, problem, {"return_tree": True})
        stream = events_client.stream(problem.prompt, {"return_tree": True}, temperature=0, max_tokens=900)
        kinds = [event.kind for event in stream]
        assert stream.text == whole.choices[0].message.content
        assert stream.finish_reason == "stop"
        assert kinds[-1] == "finish"
        assert stream.usage["completion_tokens"] == whole.usage.completion_tokens
        assert sum(branch.tokens for branch in stream.branches) == whole.usage.completion_tokens
        assert stream.figures == whole.usage.multiverse
        assert stream.record is not None
        labels = [(strand["key"], strand["label"]) for strand in stream.record["tree"]]
        assert sorted((list(branch.key), branch.label) for branch in stream.branches) == sorted(labels)
        assert (
            kinds.count("fork")
            == kinds.count("join")
            == len(stream.record["tree"][0]["forks"])
            + sum(len(strand["forks"]) for strand in stream.record["tree"][1:])
        )


def test_branches_grow_at_the_same_time(events_client: Client, problems: list[Problem]) -> None:
    """Between the first word of the last branch and the last of the first one, all of them speak."""
    stream = events_client.stream(problems[1].prompt, temperature=0, max_tokens=900)
    spoken = [event.key for event in stream if event.kind == "delta" and event.key]
    width = len(stream.branches.root.blocks[0])
    together = spoken[spoken.index((0, width - 1)) : len(spoken) - spoken[::-1].index((0, 0))]
    assert {key: together.count(key) for key in set(together)}.keys() == {(0, i) for i in range(width)}
    assert min(together.count((0, i)) for i in range(width)) > 10


def test_the_document_goes_on_beside_the_events(client: OpenAI, nested: Problem) -> None:
    """A client that knows nothing of events reads the same answer out of the same stream."""
    chunks = ask(client, nested, {"stream": "events"}, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == ask(client, nested).choices[0].message.content


def test_the_client_exists_for_asyncio_too(server: str, problems: list[Problem]) -> None:
    async def follow(client: AsyncClient, problem: Problem) -> Branch:
        stream = await client.stream(problem.prompt, temperature=0, max_tokens=900)
        async for _ in stream:
            pass
        return stream.branches.root

    async def both() -> list[Branch]:
        async with AsyncClient(f"{server}/v1") as client:
            return await asyncio.gather(*(follow(client, problem) for problem in problems[1:3]))

    roots = asyncio.run(both())
    answers = [root.text.rsplit("Answer:")[1].strip() for root in roots]
    assert answers == [problem.answer for problem in problems[1:3]]
