"""vLLM configured in other ways: what works gives the same answers, what can't is refused with its flag."""

from __future__ import annotations

import re
from random import Random
from typing import Any

import pytest

pytest.importorskip("vllm", reason="these are vLLM's own settings")

from vllm_host import VLLMHost

from multiverse import Limits
from multiverse.models import TINY
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse.oracle import generate as reference


@pytest.mark.parametrize(
    "settings",
    [
        {"scheduling_policy": "priority"},
        {"max_num_batched_tokens": 64, "max_num_seqs": 16},  # prompts come in chunks, branches wait for a place
        {"enable_prefix_caching": False},
        {"block_size": 128},
    ],
    ids=["priority scheduling", "chunked prefill", "no prefix cache", "large blocks"],
)
def test_answers_do_not_depend_on_how_vllm_schedules_and_pages(settings: dict[str, Any], tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    rng = Random(9)
    prompts = [tokenizer.encode(turn(generate(rng, kind, held_out=True))) for kind in ("nested", "flat", "chain") * 4]
    expected = [answer.ids for answer in reference(model, tokenizer, prompts, limits=Limits(max_tokens=800))]
    host = VLLMHost(str(TINY), settings=settings)
    assert [answer.ids for answer in host.generate(prompts)] == expected
    assert not any(host.leftovers().values()), host.leftovers()


def test_a_seeded_prompt_that_comes_in_chunks_is_answered_as_when_it_comes_whole(
    host: Any, tiny: tuple[Any, Any]
) -> None:
    """vLLM rewinds the generator of a seeded request after each chunk, which on CPUs takes the engine down."""
    rng = Random(4)
    prompts = [tiny[1].encode(turn(generate(rng, "nested", held_out=True))) for _ in range(6)]
    sampling = {"temperature": 1.0, "seed": 5, "max_tokens": 800}
    alone = [host.generate([prompt], **sampling)[0].ids for prompt in prompts]
    chunked = VLLMHost(str(TINY), settings={"max_num_batched_tokens": 48, "max_num_seqs": 8})
    assert [answer.ids for answer in chunked.generate(prompts, **sampling)] == alone
    assert not any(chunked.leftovers().values()), chunked.leftovers()


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        (
            {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}},
            "--speculative-config",
        ),
        ({"kv_transfer_config": {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}}, "--kv-transfer-config"),
        ({"pipeline_parallel_size": 2}, "--pipeline-parallel-size"),
    ],
)
def test_what_can_not_work_is_refused_at_start_with_its_flag(settings: dict[str, Any], flag: str) -> None:
    with pytest.raises(Exception, match=re.escape(flag)):
        VLLMHost(str(TINY), settings=settings)
