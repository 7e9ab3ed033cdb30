"""vLLM configured for what can't work with blocks: refused at start, with the flag."""

from __future__ import annotations

import re
import sys
from functools import reduce
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm", reason="these are vLLM's own settings")

from vllm import SamplingParams, envs
from vllm.config import KVEventsConfig
from vllm.engine.arg_utils import EngineArgs
from vllm_host import VLLMHost

from multiverse.errors import OptionError, UnsupportedHostError
from multiverse.models import TINY
from multiverse.serving.options import Options
from multiverse_vllm.refusals import FEATURES, refuse_configuration
from multiverse_vllm.sampling import may_fork, request_options


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        (
            {"speculative_config": {"method": "ngram_gpu", "num_speculative_tokens": 2, "prompt_lookup_max": 3}},
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


@pytest.fixture(scope="module")
def configured() -> Any:
    """A configuration with nothing in the way."""
    config = EngineArgs(str(TINY), max_model_len=256).create_engine_config()
    refuse_configuration(config)
    return config


@pytest.mark.parametrize(("reason", "path"), FEATURES.items())
def test_a_feature_that_was_never_tried_is_refused_by_its_flag(configured: Any, reason: str, path: str) -> None:
    """Without starting an engine: most of them vLLM itself refuses on a CPU, or of this model."""
    assert not reduce(getattr, path.split("."), configured)  # vLLM has it at this place
    group, _, name = path.rpartition(".")
    within = SimpleNamespace(**{at: getattr(configured, at) for at in {*vars(configured)}})
    if group:
        inner = getattr(configured, group)
        setattr(within, group, SimpleNamespace(**{at: getattr(inner, at) for at in dir(inner) if at[0] != "_"}))
    setattr(getattr(within, group) if group else within, name, SimpleNamespace())
    with pytest.raises(UnsupportedHostError, match=re.escape(reason)):
        refuse_configuration(within)


def test_front_ends_that_drop_the_field_are_refused(configured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    envs.disable_envs_cache()  # which vLLM fills when a server or an engine has started
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    with pytest.raises(UnsupportedHostError, match="VLLM_USE_RUST_FRONTEND"):
        refuse_configuration(configured)
    monkeypatch.delenv("VLLM_USE_RUST_FRONTEND")
    name = "vllm.entrypoints.launchers.grpc_server"
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    with pytest.raises(UnsupportedHostError, match=re.escape("gRPC server (--grpc)")):
        refuse_configuration(configured)


def test_a_thinking_budget_is_for_plain_requests() -> None:
    """It counts the tokens of one sequence. Who asks for both by name is told; else the request decodes plainly."""
    asked = SamplingParams(thinking_token_budget=5, extra_args={"multiverse": {"max_depth": 1}})
    with pytest.raises(OptionError, match="thinking_token_budget"):
        request_options(Options(), asked)
    request = SimpleNamespace(prompt_token_ids=[1], resumable=False)
    plain = SamplingParams(thinking_token_budget=5)
    assert may_fork(Options(), request, plain) is None  # type: ignore[arg-type]
    assert may_fork(Options(), request, SamplingParams()) is not None  # type: ignore[arg-type]
