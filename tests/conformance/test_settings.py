"""A host configured in other ways gives the same answers: how it schedules, pages and caches is its own affair."""

from __future__ import annotations

from importlib.util import find_spec
from random import Random
from typing import Any

import pytest
from answer import Host
from hosts import Engines
from tiers import Sizes

from multiverse import Limits
from multiverse.models import TINY
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse.oracle import generate as reference

VLLM: dict[str, dict[str, Any]] = {
    "priority scheduling": {"scheduling_policy": "priority"},
    "chunked prefill": {"max_num_batched_tokens": 48, "max_num_seqs": 16},
    "no prefix cache": {"enable_prefix_caching": False},
    "large blocks": {"block_size": 128},
}
SGLANG: dict[str, dict[str, Any]] = {
    "priority scheduling": {"enable_priority_scheduling": True},
    "chunked prefill": {"chunked_prefill_size": 32, "max_running_requests": 16},
    "mixed chunks": {"chunked_prefill_size": 48, "enable_mixed_chunk": True},
    "no prefix cache": {"disable_radix_cache": True},
    "large pages": {"page_size": 32, "chunked_prefill_size": 48, "enable_mixed_chunk": True},
}
SETTINGS = VLLM if find_spec("vllm") is not None else SGLANG
"""With chunked prefill there are also fewer places than branches, which then wait."""


def prompts_of(tokenizer: Any, number: int, seed: int) -> list[list[int]]:
    rng, kinds = Random(seed), ("nested", "flat", "chain") * number
    return [tokenizer.encode(turn(generate(rng, kind, held_out=True))) for kind in kinds[:number]]


@pytest.fixture(scope="module")
def answered(tiny: tuple[Any, Any], sizes: Sizes) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts, and the oracle's answers to them."""
    prompts = prompts_of(tiny[1], sizes.problems * 2 // 3, seed=9)
    return prompts, [answer.ids for answer in reference(*tiny, prompts, limits=Limits(max_tokens=800))]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_answers_do_not_depend_on_it(
    engines: Engines, settings: dict[str, Any], answered: tuple[list[list[int]], list[list[int]]]
) -> None:
    prompts, expected = answered
    host = engines(str(TINY), late=True, settings=settings)
    assert [answer.ids for answer in host.generate(prompts)] == expected
    assert not any(host.leftovers().values()), host.leftovers()


def test_a_seeded_prompt_that_comes_in_chunks_is_answered_as_when_it_comes_whole(
    engines: Engines, host: Host, late: bool, tiny: tuple[Any, Any]
) -> None:
    """vLLM rewinds the generator of a seeded request after each chunk, which on CPUs takes the stock engine down."""
    prompts = prompts_of(tiny[1], 3, seed=4)
    sampling = {"temperature": 1.0, "seed": 5, "max_tokens": 800}
    alone = [host.generate([prompt], **sampling)[0].ids for prompt in prompts]
    chunked = engines(str(TINY), late=late, settings=SETTINGS["chunked prefill"])
    assert [answer.ids for answer in chunked.generate(prompts, **sampling)] == alone
    assert not any(chunked.leftovers().values()), chunked.leftovers()
