"""What goes wrong in vLLM's front end about one request ends that request, not the task that makes all outputs."""

from __future__ import annotations

import functools
import types

import pytest

pytest.importorskip("vllm", reason="the calls are vLLM's")

import vllm_host
from prometheus_client import REGISTRY
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector
from vllm.v1.metrics.loggers import StatLoggerManager
from vllm_planting import raise_here

from multiverse.serving.metrics import Exporter, Tally
from multiverse_vllm.channels import RECORD
from multiverse_vllm.frontend import outputs

assert vllm_host  # which switches the plugin on


def test_in_the_front_end_whoever_waits_for_the_request_gets_the_error_and_the_task_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One task makes the outputs of all requests: what the scheduler sent about one of them can't be read."""
    queue = RequestOutputCollector(RequestOutputKind.DELTA, "request-7")
    state = types.SimpleNamespace(request_id="request-7", queue=queue, detokenizer=None)
    processor = OutputProcessor(None, log_stats=False)
    processor.request_states["request-7"] = state
    output = EngineCoreOutput("request-7", [], kv_transfer_params={RECORD: {"blocks": 1}})
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(outputs, "merge", raise_here)
        with pytest.raises(AttributeError):  # vLLM's own method goes on with our stand-in for its state
            processor.process_outputs([output])
    assert output.kv_transfer_params is None
    with pytest.raises(RuntimeError, match="the server's log says how"):
        queue.get_nowait()
    assert "request-7" in caplog.text
    assert "PlantedError" in caplog.text


def test_outputs_that_can_not_be_merged_are_an_error_of_their_request(caplog: pytest.LogCaptureFixture) -> None:
    queue = RequestOutputCollector(RequestOutputKind.DELTA, "request-8")
    output = RequestOutput("request-8", None, [], None, [], finished=False)
    queue.put(output)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(RequestOutput, "add", raise_here)
        queue.put(output)
    with pytest.raises(RuntimeError, match="the server's log says how"):
        queue.get_nowait()
    assert "request-8" in caplog.text


def test_metrics_of_an_engine_that_was_added_later_are_entered_and_bad_ones_are_only_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exporters = functools.cache(lambda index: Exporter("added", str(index)))
    manager = types.SimpleNamespace(_multiverse_exporters=exporters, per_engine_logger_dict={}, stat_loggers=[])
    tally = Tally()
    tally.count("forks", 3)
    for news in (tally.drain(), {"counts": {"unheard of": 1}}):
        stats = types.SimpleNamespace(kv_connector_stats={"multiverse": news})
        StatLoggerManager.record(manager, stats, None, engine_idx=5)
        assert stats.kv_connector_stats is None
    assert REGISTRY.get_sample_value("multiverse:forks_total", {"model_name": "added", "engine": "5"}) == 3
    assert "unheard of" in caplog.text
