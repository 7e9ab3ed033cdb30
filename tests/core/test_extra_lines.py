"""What is said between a host's lines of a stream looks like a chunk of the choice that it is about."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from multiverse.wire.responses import Lines, ResponseExtras

EVENT = {"kind": "fork", "key": [], "label": ""}


def chunk(identifier: str, index: int) -> str:
    """A chunk of completions, as a host writes it."""
    choices = [{"index": index, "text": "a", "finish_reason": None}]
    return f"data: {json.dumps({'id': identifier, 'created': 7, 'model': 'tiny', 'choices': choices})}\n\n"


def stream(lines: list[tuple[str, int | None]]) -> list[dict[str, Any]]:
    """The chunks of a client, where with each line of the host an event comes of the choice that stands beside it."""
    told = ResponseExtras(None, skip_special_tokens=True)

    async def host() -> AsyncGenerator[str, None]:
        for line, about in lines:
            if about is not None:
                told.events[about] = [EVENT]
            yield line

    async def read() -> list[str]:
        return [line async for line in Lines(told, "text_completion").around(host())]

    return [json.loads(line.removeprefix("data: ")) for line in asyncio.run(read())]


@pytest.mark.parametrize("names", [("x", "y"), ("x", "x")], ids=["an id per choice", "one id"])
def test_events_have_the_id_of_the_chunks_of_their_choice(names: tuple[str, str]) -> None:
    """SGLang gives each choice of completions an id of its own, vLLM all the same."""
    found = stream([(chunk(names[index], index), index) for index in (0, 1, 1, 0)])
    extra = [one for one in found if "multiverse" in one["choices"][0]]
    assert [(one["id"], one["choices"][0]["index"]) for one in extra] == [(names[i], i) for i in (0, 1, 1, 0)]
    assert all((one["created"], one["model"]) == (7, "tiny") for one in extra)


def test_a_choice_of_which_the_host_has_said_nothing_gets_an_id_that_the_host_has_said() -> None:
    assert [one["id"] for one in stream([(chunk("x", 0), 1)])] == ["x", "x"]
