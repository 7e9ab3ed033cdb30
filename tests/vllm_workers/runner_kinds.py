"""Engines of vLLM with either of its model runners, in each way that they schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vllm import envs
from vllm_host import VLLMHost

RUNNERS = {
    "V1": "vllm.v1.worker.gpu_model_runner",
    "V2": "vllm.v1.worker.gpu.model_runner",
    "V2 a step ahead": "vllm.v1.worker.gpu.model_runner",
    "V2 with drafts": "vllm.v1.worker.gpu.model_runner",
}
DRAFTING = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 1, "prompt_lookup_max": 4}


def start(kind: str, model: Path, settings: dict[str, Any] | None = None, **options: Any) -> VLLMHost:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_USE_V2_MODEL_RUNNER", str(int(kind != "V1")))
        envs.disable_envs_cache()  # of an engine before
        drafts = {"speculative_config": DRAFTING} if kind == "V2 with drafts" else {}
        host = VLLMHost(str(model), late=kind == "V2 a step ahead", settings=drafts | (settings or {}), **options)
    assert RUNNERS[kind] in {base.__module__ for base in type(runner_of(host)).__mro__}
    return host


def runner_of(host: VLLMHost) -> Any:
    return host.llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
