"""A host's own n-gram drafts over HTTP, in every strand: streams and answers are those of a server that does not draft.

In a process of its own: where numba has been imported, vLLM makes no engine that drafts on a CPU.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import OpenAI
from servers import Servers
from streamed import assert_whole, scraped, stream

from multiverse.models.task import Problem

VLLM = '{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 1, "prompt_lookup_max": 4}'
SGLANG = "--speculative-algorithm NGRAM --speculative-num-draft-tokens 5 --speculative-ngram-capacity 100000"
NGRAM = {"vllm": ["--speculative-config", VLLM], "sglang": ["--disable-overlap-schedule", *SGLANG.split()]}


@pytest.fixture(scope="module")
def drafting(servers: Servers) -> str:
    """The base URL of a server that drafts."""
    return servers(*NGRAM[servers.host])


def test_answers_are_those_without_drafts_and_some_of_their_tokens_were_drafted(
    drafting: str, server: str, problems: list[Problem]
) -> None:
    """Beside requests that sample, as fast as they come."""
    client = OpenAI(base_url=f"{drafting}/v1", api_key="none")
    with ThreadPoolExecutor(2 * len(problems)) as pool:
        others = [pool.submit(_sample, client, problem) for problem in problems]
        ours = list(pool.map(stream, [drafting] * len(problems), problems))
        assert all(other.result() for other in others)
    theirs = [stream(server, problem) for problem in problems]
    assert [answer.tokens for answer in ours] == [answer.tokens for answer in theirs]
    for answer in ours:
        assert_whole(answer)
    told = [answer.usage["multiverse"]["accepted_draft_tokens"] for answer in ours]
    assert all(0 < mine < answer.usage["completion_tokens"] for mine, answer in zip(told, ours, strict=True))
    assert [answer.usage["multiverse"]["accepted_draft_tokens"] for answer in theirs] == [0] * len(theirs)
    (counts,) = scraped(drafting).values()
    assert counts["draft_tokens_total"] > 0
    assert counts["integrity_failures_total"] == 0


def _sample(client: OpenAI, problem: Problem) -> str:
    answer = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": problem.prompt}], temperature=1.0, max_tokens=300
    )
    return answer.choices[0].finish_reason
