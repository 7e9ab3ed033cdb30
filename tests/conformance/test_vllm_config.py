"""vLLM configured for what can't work with blocks: refused at start, with the flag."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytest.importorskip("vllm", reason="these are vLLM's own settings")

from vllm.config import KVEventsConfig
from vllm_host import VLLMHost

from multiverse.models import TINY


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        (
            {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}},
            "--speculative-config",
        ),
        ({"kv_transfer_config": {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}}, "--kv-transfer-config"),
        (
            {"kv_events_config": KVEventsConfig(enable_kv_cache_events=True, publisher="null")},
            "--kv-events-config",
        ),
        ({"pipeline_parallel_size": 2}, "--pipeline-parallel-size"),
    ],
)
def test_what_can_not_work_is_refused_at_start_with_its_flag(settings: dict[str, Any], flag: str) -> None:
    with pytest.raises(Exception, match=re.escape(flag)):
        VLLMHost(str(TINY), settings=settings)
