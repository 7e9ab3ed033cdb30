"""What is counted in the scheduler arrives in Prometheus, once, under names that do not depend on the host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY

from multiverse.serving.metrics import COUNTERS, GAUGES, HISTOGRAMS, Exporter, Tally
from multiverse.structure.reasons import Reason


def record(**figures: Any) -> dict[str, Any]:
    usual = {"fallbacks": {}, "recomputed_tokens": 0, "accepted_draft_tokens": 0, "branches": 2, "parallel_degree": 1.5}
    return usual | figures


def value(name: str, model: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"multiverse:{name}", {"model_name": model, "engine": "0", **labels})


def test_everything_is_there_as_zero_from_the_start() -> None:
    Exporter("zeros")
    assert {value(f"{name}_total", "zeros") for name in COUNTERS} == {0}
    assert {value("fallbacks_total", "zeros", reason=str(reason)) for reason in Reason} == {0}
    assert {value(name, "zeros") for name in GAUGES} == {0}
    assert {value(f"{name}_count", "zeros") for name in HISTOGRAMS} == {0}


def test_they_are_there_too_where_a_server_gathers_what_its_processes_write(tmp_path: Path) -> None:
    """As SGLang does. Prometheus decides how it works when it is imported, hence the process."""
    script = (
        "from prometheus_client import CollectorRegistry, multiprocess\n"
        "from multiverse.serving.metrics import Exporter\n"
        "Exporter('gathered')\n"
        "registry = CollectorRegistry()\n"
        "multiprocess.MultiProcessCollector(registry)\n"
        "print(*sorted(s.name for metric in registry.collect() for s in metric.samples if s.value == 0))\n"
    )
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert {f"multiverse:{name}" for name in GAUGES} <= set(found.stdout.split())
    assert {f"multiverse:{name}_total" for name in COUNTERS} <= set(found.stdout.split())


def test_what_is_drained_arrives_once() -> None:
    tally, exporter = Tally(), Exporter("once")
    tally.count("forks")
    tally.count("spliced_tokens", 40)
    tally.observe("join_seconds", 0.02)
    tally.finished(record(fallbacks={"too_wide": 2}, recomputed_tokens=7), [2, 5])
    for _ in range(3):
        figures = tally.drain(running_branches=2, parked_sequences=1)
        if figures is not None:
            exporter.enter(json.loads(json.dumps(figures)))
    assert value("forks_total", "once") == 1
    assert value("spliced_tokens_total", "once") == 40
    assert value("recomputed_tokens_total", "once") == 7
    assert value("fallbacks_total", "once", reason="too_wide") == 2
    assert value("running_branches", "once") == 2
    assert (value("block_width_count", "once"), value("block_width_sum", "once")) == (2, 7)
    assert value("parallel_degree_sum", "once") == 1.5
    assert value("join_seconds_bucket", "once", le="0.025") == 1
    assert tally.totals["forks"] == 1


def test_a_quiet_engine_sends_nothing_but_says_when_it_became_quiet() -> None:
    tally = Tally()
    assert tally.drain(running_branches=0, parked_sequences=0) is None
    assert tally.drain(running_branches=1, parked_sequences=0) is not None
    assert tally.drain(running_branches=1, parked_sequences=0) is None
    figures = tally.drain(running_branches=0, parked_sequences=0)
    assert figures is not None
    assert figures["gauges"] == dict.fromkeys(GAUGES, 0)


def test_a_request_that_was_not_forked_has_no_parallel_degree() -> None:
    tally = Tally()
    tally.finished(record(branches=0, parallel_degree=1.0, fallbacks={"no_outline": 1}), [])
    figures = tally.drain()
    assert figures is not None
    assert (figures["samples"], figures["fallbacks"]) == ({}, {"no_outline": 1})


def test_without_a_reader_what_was_observed_does_not_grow_for_ever() -> None:
    tally = Tally()
    for value in range(100_000):
        tally.observe("join_seconds", value)
    figures = tally.drain()
    assert figures is not None
    kept = figures["samples"]["join_seconds"]
    assert len(kept) < 10_000
    assert kept[-1] == 99_999
