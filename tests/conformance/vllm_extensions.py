"""What users of vLLM bring themselves: a scheduler class, and a logits processor."""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor


class Renamed(AsyncScheduler):
    """vLLM's own under another name."""


class Counting(LogitsProcessor):
    """Changes nothing; `seen` says how many rows it was shown, branches among them."""

    seen = 0

    def __init__(self, *_: Any) -> None:
        self.rows = 0

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        self.rows = batch_update.batch_size if batch_update else self.rows

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        type(self).seen = max(self.seen, len(logits))
        return logits
