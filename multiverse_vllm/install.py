"""Puts the wrappers of the hook table in place. What they do stands in the rooms that they lead to."""

from __future__ import annotations

from multiverse_vllm.channels import INSTALLED
from multiverse_vllm.hooks import require, table
from multiverse_vllm.worker import cpu_drafts


def install() -> None:
    """Wrap what the table says. Idempotent.

    Raises:
        UnsupportedHostError: with everything that does not match, before anything was changed.
    """
    cpu_drafts.keep_threads()
    require(table())
    from vllm.config.scheduler import SchedulerConfig

    from multiverse_vllm import attention
    from multiverse_vllm.frontend import inputs, metrics, outputs, stops
    from multiverse_vllm.scheduler import aborts, rehearsal
    from multiverse_vllm.scheduler.scheduler import with_multiverse
    from multiverse_vllm.worker import runners

    configured = SchedulerConfig.get_scheduler_cls
    if hasattr(configured, INSTALLED):
        return

    def get_scheduler_cls(self: SchedulerConfig) -> type:
        return with_multiverse(configured(self))

    setattr(get_scheduler_cls, INSTALLED, True)
    SchedulerConfig.get_scheduler_cls = get_scheduler_cls
    attention.offer()
    for room in (inputs, outputs, stops, metrics, rehearsal, aborts, runners, cpu_drafts):
        room.install()
