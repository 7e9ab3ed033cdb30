"""Metrics of blocks in vLLM's own `/metrics`: the scheduler's tally travels with its statistics."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from vllm.config import VllmConfig
from vllm.v1.metrics.loggers import StatLoggerManager
from vllm.v1.metrics.stats import SchedulerStats

from multiverse.serving.containment import Guard
from multiverse.serving.metrics import Exporter
from multiverse_vllm.channels import EXPORTERS, FIGURES

_GUARD: Guard[object] = Guard(lambda _: None, str, logging.getLogger("vllm.multiverse"))


def install() -> None:
    """Wrap what hands statistics to vLLM's loggers."""
    init, record = StatLoggerManager.__init__, StatLoggerManager.record

    @functools.wraps(init)
    def start(self: StatLoggerManager, vllm_config: VllmConfig, *args: object, **kwargs: object) -> None:
        init(self, vllm_config, *args, **kwargs)
        model = str(vllm_config.model_config.served_model_name)
        exporters = functools.cache(lambda index: Exporter(model, str(index)))  # engines may be added later
        setattr(self, EXPORTERS, exporters)
        for index in self.engine_indexes:
            exporters(index)

    @functools.wraps(record)
    def enter(
        self: StatLoggerManager,
        scheduler_stats: SchedulerStats | None,
        *args: object,
        engine_idx: int | None = None,
        **kwargs: object,
    ) -> None:
        if scheduler_stats is not None and (sent := scheduler_stats.kv_connector_stats) and FIGURES in sent:
            scheduler_stats.kv_connector_stats = None
            _GUARD.aside(_enter, getattr(self, EXPORTERS), engine_idx or 0, sent[FIGURES], otherwise=None)
        record(self, scheduler_stats, *args, engine_idx=engine_idx, **kwargs)

    StatLoggerManager.__init__ = start
    StatLoggerManager.record = enter


def _enter(exporters: Callable[[int], Exporter], engine: int, figures: Mapping[str, Any]) -> None:
    exporters(engine).enter(figures)
