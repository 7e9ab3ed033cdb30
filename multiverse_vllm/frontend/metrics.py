"""Metrics of blocks in vLLM's own `/metrics`: the scheduler's tally travels with its statistics, in a field that is
free because KV connectors are refused."""

from __future__ import annotations

import functools
import logging
from typing import Any

from multiverse.serving.containment import Guard
from multiverse.serving.metrics import Exporter
from multiverse.wire.responses import FIELD

_EXPORTERS = "_multiverse_exporters"
_GUARD: Guard[Any] = Guard(lambda _: None, str, logging.getLogger("vllm.multiverse"))


def install() -> None:
    """Wrap what hands statistics to vLLM's loggers."""
    from vllm.v1.metrics.loggers import StatLoggerManager

    init, record = StatLoggerManager.__init__, StatLoggerManager.record

    @functools.wraps(init)
    def start(self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        init(self, vllm_config, *args, **kwargs)
        model = str(vllm_config.model_config.served_model_name)
        exporters = functools.cache(lambda index: Exporter(model, str(index)))  # engines may be added later
        setattr(self, _EXPORTERS, exporters)
        for index in self.engine_indexes:
            exporters(index)

    @functools.wraps(record)
    def enter(self: Any, scheduler_stats: Any, *args: Any, engine_idx: int | None = None, **kwargs: Any) -> None:
        if scheduler_stats is not None and (told := scheduler_stats.kv_connector_stats) and FIELD in told:
            scheduler_stats.kv_connector_stats = None
            _GUARD.aside(_enter, getattr(self, _EXPORTERS), engine_idx or 0, told[FIELD], otherwise=None)
        record(self, scheduler_stats, *args, engine_idx=engine_idx, **kwargs)

    StatLoggerManager.__init__ = start
    StatLoggerManager.record = enter


def _enter(exporters: Any, engine: int, figures: Any) -> None:
    exporters(engine).enter(figures)
