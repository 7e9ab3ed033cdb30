"""A drafter for vLLM that looks beyond its row (`multiverse.serving.ngrams`).

    --speculative-config '{"method": "custom_class", "model": "multiverse_vllm.worker.drafter.SharedNGrams",
                           "num_speculative_tokens": 8}'

Ranks of one engine see the same tokens, and so draft the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from multiverse.serving.ngrams import NGrams

if TYPE_CHECKING:
    from vllm.config import VllmConfig


class SharedNGrams:
    """Drafts for each row what came behind the same tokens the last time in any row."""

    def __init__(self, vllm_config: VllmConfig) -> None:
        self._most = int(vllm_config.num_speculative_tokens)
        self._longest = vllm_config.model_config.max_model_len
        self._known = NGrams()

    def propose(
        self,
        sampled_token_ids: list[list[int]],
        num_tokens_no_spec: np.ndarray,
        token_ids_cpu: np.ndarray,
        slot_mappings: object = None,  # noqa: ARG002
    ) -> list[list[int]]:
        """Draft for each row that has just sampled something.

        Args:
            sampled_token_ids: by row; none where a prompt is still computed.
            num_tokens_no_spec: int `[rows]`: how many tokens each row holds.
            token_ids_cpu: int `[rows, longest]`: which.

        Returns:
            by row, up to as many tokens as vLLM was told to draft.
        """
        held = (token_ids_cpu[at, : num_tokens_no_spec[at]] for at in range(len(sampled_token_ids)))
        rows = [cast("Sequence[int]", row) for row in held]  # whose ends are looked at, not all of it
        for row, sampled in zip(rows, sampled_token_ids, strict=True):
            if sampled:
                self._known.learn(row, len(sampled))
        return [
            self._known.draft(row, min(self._most, self._longest - len(row) - 1)) if sampled else []
            for row, sampled in zip(rows, sampled_token_ids, strict=True)
        ]

    def load_model(self, *_: object) -> None:
        """There is none."""
