"""What a scheduler does before it serves anybody, operators don't see, nor does SGLang when it serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from typing import Any

from multiverse_sglang.host import Scheduler


@contextmanager
def unseen(scheduler: Scheduler) -> Iterator[None]:
    """Log no steps, count nothing, don't sleep for want of clients, and put back what SGLang counts by itself."""
    reporter, collectors = scheduler.metrics_reporter, (scheduler.metrics_collector, _collector(scheduler.tree_cache))
    with ExitStack() as stack:
        for holder in (scheduler, reporter):
            stack.callback(vars(holder).update, _figures(holder))
        for collector in filter(None, collectors):
            stack.callback(setattr, collector, "__class__", type(collector))
            collector.__class__ = _Deaf
        stack.callback(setattr, scheduler, "idle_sleeper", scheduler.idle_sleeper)
        scheduler.idle_sleeper = None
        reporter.is_stats_logging_rank = reporter.current_scheduler_metrics_enabled = False
        yield


class _Deaf:
    """What a collector of metrics is meanwhile: SGLang has handed it to many."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


def _collector(cache: Any) -> Any:
    return getattr(cache, "metrics_collector", None)


def _figures(holder: object) -> dict[str, Any]:
    """What it knows in numbers: counts, times and averages, whatever a release calls them."""
    return {name: copy(value) for name, value in vars(holder).items() if _is_figure(value)}


def _is_figure(value: object) -> bool:
    """Whether it is a number, or a list of numbers."""
    return isinstance(value, int | float) or (isinstance(value, list) and bool(value) and all(map(_is_figure, value)))
