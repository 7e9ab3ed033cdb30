"""Drafters for vLLM's `custom_class`: one that knows what will be said, and one that repeats what a row holds.

The second is an n-gram drafter. vLLM's own imports numba, and in a process that has it no second engine that drafts can
be made on a CPU (findings/vllm_cpu_drafts_after_numba.sh).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np


class RowDrafter:
    """Drafts what came behind the same tokens the last time in the same row."""

    _LONGEST = 3

    def __init__(self, config: Any) -> None:
        self._most = config.speculative_config.num_speculative_tokens

    def propose(
        self, sampled: list[list[int]], lengths: np.ndarray, tokens: np.ndarray, slot_mappings: object = None
    ) -> list[list[int]]:
        """Drafts for each row that has just sampled something: `tokens[row, :lengths[row]]` is what it holds."""
        _ = slot_mappings
        return [self._behind(tokens[row, : lengths[row]].tolist()) if new else [] for row, new in enumerate(sampled)]

    def load_model(self, *_: object) -> None:
        """There is none."""

    def _behind(self, held: list[int]) -> list[int]:
        for length in range(self._LONGEST, 0, -1):
            if found := _behind(held[:-1], held[-length:]):
                return found[: self._most]
        return []


class KnownDrafter(RowDrafter):
    """Drafts what comes in known sequences behind the last tokens of a row.

    Attributes:
        known: token ids of these sequences.
        wrong: each so-manieth drafted token is another one; 0: none is.
    """

    known: ClassVar[list[list[int]]] = []
    wrong: ClassVar[int] = 0
    _LONGEST = 6

    def _behind(self, held: list[int]) -> list[int]:
        for sequence in self.known:
            if drafted := _behind(sequence, held[-self._LONGEST :])[: self._most]:
                wrong = [self.wrong > 0 and (len(held) + offset) % self.wrong == 0 for offset in range(len(drafted))]
                return [token + other for token, other in zip(drafted, wrong, strict=True)]
        return []


def _behind(sequence: list[int], last: list[int]) -> list[int]:
    """What comes in `sequence` behind `last`, where that stands last."""
    for start in range(len(sequence) - len(last), -1, -1):
        if sequence[start : start + len(last)] == last:
            return sequence[start + len(last) :]
    return []


def drafting(drafter: type[RowDrafter], most: int) -> dict[str, Any]:
    """vLLM's settings with which an engine drafts up to `most` tokens."""
    model = f"{__name__}.{drafter.__name__}"
    return {"speculative_config": {"method": "custom_class", "model": model, "num_speculative_tokens": most}}


def accepted_before_others(host: Any) -> set[int]:
    """Note which tokens are accepted in front of others in one step; those that were since this was asked last."""
    tokens = host.scheduler.tokens
    found: set[int] | None = getattr(tokens, "behind", None)
    if found is None:
        accept = tokens.accept

        def seen(member: Any, sampled: list[int]) -> Any:
            tokens.behind.update(sampled[:-1])
            return accept(member, sampled)

        tokens.accept = seen
    tokens.behind = set()
    return found or set()
