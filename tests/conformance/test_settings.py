"""A host configured in other ways gives the same answers: how it schedules, pages and caches is its own affair."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from random import Random
from typing import Any

import pytest
from answer import Host
from hosts import Engines
from packaging.version import Version
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
    "many of its scheduler's at once": {
        "max_num_active_seqs": 8,
        "max_num_batched_tokens": 96,
        "max_num_scheduled_tokens": 64,
        "long_prefill_token_threshold": 32,
        "long_prefill_token_threshold_adaptive": True,
        "prefill_schedule_interval": 3,
        "scheduler_reserve_full_isl": False,
        "watermark": 0.05,
        "stream_interval": 3,
        "scheduler_cls": "vllm_extensions.Renamed",
    },
    "many of its caches' and samplers' at once": {
        "prefix_caching_hash_algo": "sha256_cbor",
        "prefix_match_unit": 32,
        "kv_cache_metrics": True,
        "kv_cache_metrics_sample": 1.0,
        "disable_hybrid_kv_cache_manager": True,
        "logprobs_mode": "processed_logprobs",
        "use_fp64_gumbel": True,
        "logits_processors": ["vllm_extensions:Counting"],
        "enable_logging_iteration_details": True,
        "enable_sleep_mode": False,
    },
}
SGLANG: dict[str, dict[str, Any]] = {
    "priority scheduling": {"enable_priority_scheduling": True},
    "chunked prefill": {"chunked_prefill_size": 32, "max_running_requests": 16},
    "mixed chunks": {"chunked_prefill_size": 48, "enable_mixed_chunk": True},
    "no prefix cache": {"disable_radix_cache": True},
    "large pages": {"page_size": 32, "chunked_prefill_size": 48, "enable_mixed_chunk": True},
    "many of its scheduler's at once": {
        "schedule_policy": "lpm",
        "num_continuous_decode_steps": 3,
        "scheduler_recv_interval": 2,
        "schedule_conservativeness": 0.3,
        "max_prefill_tokens": 64,
        "prefill_max_requests": 4,
        "prefill_decode_interval": 2,
        "prefill_decode_interval_min_bs": 2,
        "min_free_slots_delay": 2,
        "retraction_policy": "priority",
        "max_queued_requests": 1000,
        "stream_interval": 4,
        "sleep_on_idle": True,
        "decode_log_interval": 1,
    },
    "many of its caches' and samplers' at once": {
        "radix_eviction_policy": "lfu",
        "enable_session_radix_cache": True,
        "enable_streaming_session": True,
        "enable_custom_logit_processor": True,
        "enable_fp32_lm_head": True,
        "sampling_backend": "pytorch",
        "enable_return_hidden_states": True,
        "enable_memory_saver": False,
    },
    "the radix tree's core in Python": {"environment": {"SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND": "python"}},
    "prefixes that are looked up again": {"environment": {"SGLANG_ENABLE_WAITING_PREFIX_REFRESH": "1"}},
}
POLICIES = ("random", "dfs-weight", "lof", "priority", "routing-key", "hrrn", "shortest-prefill-first")
HOST = "vllm" if find_spec("vllm") is not None else "sglang"
SETTINGS = {"vllm": VLLM, "sglang": SGLANG}[HOST]
"""With chunked prefill there are also fewer places than branches, which then wait."""
SINCE = {"prefill_decode_interval_min_bs": "0.5.23"}
"""By setting, the release that brought it, of those that an older one that is supported lacks."""


def prompts_of(tokenizer: Any, number: int, seed: int) -> list[list[int]]:
    rng, kinds = Random(seed), ("nested", "flat", "chain") * number
    return [tokenizer.encode(turn(generate(rng, kind, held_out=True))) for kind in kinds[:number]]


@pytest.fixture(scope="module")
def answered(tiny: tuple[Any, Any], sizes: Sizes) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts, and the oracle's answers to them."""
    prompts = prompts_of(tiny[1], sizes.problems * 2 // 3, seed=9)
    return prompts, [answer.ids for answer in reference(*tiny, prompts, limits=Limits(max_tokens=800))]


@pytest.mark.parametrize(
    "settings",
    [pytest.param(own, marks=pytest.mark.long if "environment" in own else ()) for own in SETTINGS.values()],
    ids=SETTINGS,
)
def test_answers_do_not_depend_on_it(
    engines: Engines, settings: dict[str, Any], answered: tuple[list[list[int]], list[list[int]]]
) -> None:
    prompts, expected = answered
    release = Version(import_module(HOST).__version__)
    own = {name: value for name, value in settings.items() if release >= Version(SINCE.get(name, "0"))}
    variables = {"environment": own.pop("environment")} if "environment" in own else {}
    host = engines(str(TINY), late=True, settings=own, **variables)
    assert [answer.ids for answer in host.generate(prompts)] == expected
    assert not any(host.leftovers().values()), host.leftovers()


@pytest.mark.long
@pytest.mark.parametrize("policy", POLICIES)
def test_answers_do_not_depend_on_the_policy_of_sglang(
    engines: Engines, policy: str, answered: tuple[list[list[int]], list[list[int]]]
) -> None:
    pytest.importorskip("sglang", reason="vLLM has two, which are tested above")
    prompts, expected = answered
    host = engines(str(TINY), late=True, settings={"schedule_policy": policy})
    assert [answer.ids for answer in host.generate(prompts)] == expected


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
