"""Moves tokens within SGLang's KV pool, between two forwards."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from multiverse_sglang.host import Scheduler


class SlotMoves:
    """Moves of the scheduler's KV. Sources and targets are int64 tensors of slots, of the same length pair by pair."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._kv = scheduler.token_to_kv_pool_allocator.get_kvcache()
        self._later: list[tuple[torch.Tensor, torch.Tensor]] = []

    @property
    def pending(self) -> int:
        """Moves that the next forward has to do first."""
        return len(self._later)

    def schedule(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Move these where the next forward runs (`run`)."""
        self._later.append((sources, targets))

    def run(self) -> None:
        """Do what was scheduled. To be called where the next forward runs, before it."""
        if self._later:
            sources, targets = zip(*self._later, strict=True)
            self._later = []
            self._move(sources, targets)

    def now(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Move after the forward under way and before the next one. Targets may be sources too."""
        with self._forward_order():
            self._move([sources], [targets])

    def _move(self, sources: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> None:
        """Move tokens in every layer; all are gathered before any is written."""
        for slots in (*sources, *targets):
            if slots.device.type != "cpu":  # made on the scheduler's stream, and not to be used again before this ran
                slots.record_stream(torch.get_device_module(slots.device).current_stream())
        self._kv.move_kv_cache(torch.cat(list(targets)), torch.cat(list(sources)))

    def _forward_order(self) -> AbstractContextManager[object]:
        scheduler = self._scheduler
        if not scheduler.enable_overlap:
            return nullcontext()
        scheduler.forward_stream.wait_stream(scheduler.schedule_stream)
        context: AbstractContextManager[object] = scheduler.forward_stream_ctx
        return context


def can_move(kv: Any) -> bool:
    """Whether tokens can be moved within the KV pool `kv`.

    From then on by indexing: SGLang prepares its own kernel for speculative decoding only, and that writes some tokens
    before it has read all.
    """
    if getattr(kv, "kv_cache_layout", "") == "vectorized_5d":
        return False  # SGLang would index pages as if they were tokens
    if hasattr(kv, "use_native_move_kv_cache"):
        kv.use_native_move_kv_cache = True
    padding = torch.zeros(1, dtype=torch.int64, device=kv.device)
    try:
        kv.move_kv_cache(padding, padding)
    except (AttributeError, AssertionError, RuntimeError):
        return False
    return True
