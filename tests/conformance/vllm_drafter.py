"""A drafter for vLLM that knows what will be said, and where it is to be wrong; of the kind `custom_class`."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np


class KnownDrafter:
    """Drafts what comes in known sequences behind the last tokens of a row.

    Attributes:
        known: token ids of these sequences.
        wrong: each so-manieth drafted token is another one; 0: none is.
    """

    known: ClassVar[list[list[int]]] = []
    wrong: ClassVar[int] = 0
    _LAST = 6

    def __init__(self, config: Any) -> None:
        self._most = config.speculative_config.num_speculative_tokens

    def propose(
        self, sampled: list[list[int]], lengths: np.ndarray, tokens: np.ndarray, slot_mappings: object = None
    ) -> list[list[int]]:
        """Drafts for each row that has just sampled something: `tokens[row, :lengths[row]]` is what it holds."""
        _ = slot_mappings
        return [self._behind(tokens[row, : lengths[row]].tolist()) if new else [] for row, new in enumerate(sampled)]

    def _behind(self, held: list[int]) -> list[int]:
        last = held[-self._LAST :]
        for sequence in self.known:
            for at in range(len(sequence) - self._LAST):
                if sequence[at : at + self._LAST] == last:
                    drafted = sequence[at + self._LAST :][: self._most]
                    return [
                        token + (self.wrong > 0 and (len(held) + offset) % self.wrong == 0)
                        for offset, token in enumerate(drafted)
                    ]
        return []

    def load_model(self, *_: object) -> None:
        """There is none."""


SETTINGS = {"method": "custom_class", "model": f"{__name__}.{KnownDrafter.__name__}", "num_speculative_tokens": 8}
