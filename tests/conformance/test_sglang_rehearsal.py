"""SGLang whose functions are all there and mean something else: the rehearsal at start refuses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("sglang", reason="vLLM's is in test_vllm_rehearsal.py")

from sglang_faults import FAULTS
from sglang_forks import python
from sglang_host import SGLangHost

from multiverse.models import TINY

SAID = {
    "nothing is found": "tokens are in the prefix cache, no more than of a plain one",
    "tokens stay where they are": "a rehearsed fork and splice differs",
    "what is unlocked stays locked": "a rehearsal leaves something over (tokens locked in the radix tree",
}
START = """
import logging, os, sys
sys.path[:0] = {path!r}
import multiverse_sglang
from multiverse_sglang import hooks
if {version!r}:
    os.environ["MULTIVERSE_UNTESTED_HOST"] = "1"
    hooks.host_version = lambda: {version!r}
multiverse_sglang.enable()
from prometheus_client import REGISTRY
from sglang_faults import planted
from sglang_stepper import Stepper
logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)
if {fault!r}:
    planted({fault!r}).start()
settings = dict(page_size=16, attention_backend="multiverse", enable_metrics=True, log_level="info", sleep_on_idle=True)
scheduler = Stepper(None, {model!r}, 4096, True, settings).scheduler
conductor, reporter = scheduler.multiverse_conductor, scheduler.metrics_reporter
assert not any(conductor.tally.totals.values())
assert scheduler.tree_cache.evictable_size() == 0
assert scheduler.last_batch is None and scheduler.running_batch.is_empty() and not scheduler.waiting_queue
assert not scheduler.gracefully_exit and scheduler.idle_sleeper is not None
assert scheduler.forward_ct == scheduler.total_prefill_uncached_tokens == 0 and not any(scheduler.decode_moment_totals)
assert reporter.is_stats_logging_rank and reporter.current_scheduler_metrics_enabled
assert reporter.forward_ct_decode == reporter.num_generated_tokens == reporter.last_gen_throughput == 0
families = [family for family in REGISTRY.collect() if family.name.startswith(("sglang:", "multiverse:"))]
assert {{"sglang:realtime_tokens", "multiverse:forks"}} <= {{family.name for family in families}}
counted = [family for family in families if family.type in ("counter", "histogram")]
samples = [one for family in counted for one in family.samples if not one.name.endswith("_created")]
assert not any(one.value for one in samples), [one for one in samples if one.value]
"""
"""A scheduler's start; its process ends with an error if it is refused, or if anything of a rehearsal is left."""


@pytest.fixture(scope="module")
def paged_host() -> Iterator[SGLangHost]:
    host = SGLangHost(str(TINY), settings={"page_size": 16})
    yield host
    host.close()


def test_every_fault_is_looked_for() -> None:
    assert SAID.keys() == FAULTS.keys()


@pytest.mark.parametrize("fault", SAID)
def test_a_change_of_meaning_is_refused(paged_host: SGLangHost, fault: str) -> None:
    *_, refusal = paged_host.operate("rehearse", fault)
    assert refusal.startswith("refused: ")
    assert SAID[fault] in refusal
    assert "this SGLang, or this model" in refusal
    assert paged_host.operate("rehearse")[-1].startswith("multiverse: fork and splice rehearsed")  # it was the fault


def test_an_untested_release_rehearses_with_a_warning(paged_host: SGLangHost) -> None:
    warning, rehearsed = paged_host.operate("rehearse", None, "0.99.0")
    assert "SGLang 0.99.0 was never tested" in warning
    assert "fork and splice rehearsed" in rehearsed


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"max_req_len": 100}, "a context of 100 tokens is too short"),
        ({"max_new_tokens_limit": 100}, "SGLANG_MAX_NEW_TOKENS_LIMIT is 100"),
        ({"dtype": torch.float8_e5m2}, "KV in torch.float8_e5m2 is rounded"),
    ],
)
def test_who_can_not_rehearse_says_why_and_runs_in_a_tested_release_only(
    paged_host: SGLangHost, changed: dict[str, Any], why: str
) -> None:
    (said,) = paged_host.operate("rehearse", None, None, changed)
    assert said.startswith(f"multiverse: no rehearsal: {why}")
    *_, refusal = paged_host.operate("rehearse", None, "0.99.0", changed)
    assert refusal.startswith(f"refused: a release that was never tested has to rehearse, and can't: {why}")


@pytest.mark.parametrize("version", [None, "0.5.99"], ids=["tested", "untested"])
@pytest.mark.parametrize("fault", [None, "tokens stay where they are"])
def test_every_start_rehearses_before_it_serves_and_counts_nothing_of_it(
    fault: str | None, version: str | None
) -> None:
    here = Path(__file__).parent
    path = [str(here), str(here.parent)]
    result = python(START.format(path=path, model=str(TINY), version=version, fault=fault))
    said = "multiverse: fork and splice rehearsed" if fault is None else SAID[fault]
    assert said in result.stderr
    assert (result.returncode == 0) is (fault is None), result.stderr
    assert ("was never tested" in result.stderr) is (version is not None)
    assert "batch, #new-seq" not in result.stderr
