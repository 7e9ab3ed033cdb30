"""Metrics of blocks in SGLang's own `/metrics`: its schedulers write to files that the server gathers, and so do we."""

from __future__ import annotations

from collections.abc import Iterable

from sglang.srt.runtime_context import get_parallel

from multiverse.serving.metrics import Exporter, Tally
from multiverse_sglang.host import Scheduler
from multiverse_sglang.scheduler.tree import RequestTree


class Metrics:
    """The metrics of one scheduler."""

    def __init__(self, model: str, engine: str) -> None:
        self._exporter = Exporter(model, engine)

    @classmethod
    def of(cls, scheduler: Scheduler) -> Metrics | None:
        """Those of `scheduler`; `None` without `--enable-metrics`, and for all ranks but the first of a model."""
        arguments = scheduler.server_args
        ranks = get_parallel()
        if not arguments.enable_metrics or ranks.tp_rank != 0:
            return None
        return cls(arguments.served_model_name or arguments.model_path, str(ranks.dp_rank or 0))

    def update(self, tally: Tally, trees: Iterable[RequestTree]) -> None:
        """Enter what is new."""
        members = [member for tree in trees for member in tree.members.values()]
        running = sum(member.strand.parent is not None and member.run is not None for member in members)
        parked = sum(member.run is None for member in members)
        held = sum(member.held_since is not None for member in members)
        figures = tally.drain(running_branches=running, parked_sequences=parked, held_branches=held)
        if figures is not None:
            self._exporter.enter(figures)
