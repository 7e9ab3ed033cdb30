"""The KV slots of one strand."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(eq=False)
class KVSlots:
    """KV slots of a strand that is in no batch. Who has it gives back what it owns, once (`slots.SlotPool.release`).

    Attributes:
        indices: the slot of every computed token of its sequence, int64 `[tokens]` on the KV pool's device.
        owned_from: the first token whose slot is its own; those before belong to its parent or to the radix tree. It
            begins a page unless none is its own.
        lock: what keeps the radix tree from evicting its part, if anything.
    """

    indices: torch.Tensor
    owned_from: int
    lock: object = None

    def __post_init__(self) -> None:
        assert 0 <= self.owned_from <= self.length

    @property
    def length(self) -> int:
        """Tokens of the sequence."""
        return len(self.indices)

    @property
    def owned(self) -> torch.Tensor:
        """The slots of its own tokens."""
        return self.indices[self.owned_from :]

    def drop_owned(self) -> None:
        """Forget what is its own: SGLang has given it back."""
        self.indices = self.indices[: self.owned_from]
