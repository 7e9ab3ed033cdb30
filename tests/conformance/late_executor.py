"""Async scheduling without a GPU: vLLM's own executor and workers, whose outputs reach the scheduler a step late.

The CPU platform switches async scheduling off, because nothing would run at the same time. What has to be right is the
order of things, and that is the same here: a step is scheduled before the tokens of the step before it are known.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.executor.uniproc_executor import UniProcExecutor


class LateExecutor(UniProcExecutor):
    """Switches async scheduling on for the engine core, once the worker was made without it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.vllm_config.scheduler_config.async_scheduling = True
