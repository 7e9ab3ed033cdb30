"""How the oracle picks a token: the parameters of `transformers.GenerationConfig` and transformers' own processors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LogitsProcessorList
from transformers.generation import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters with the names, meanings and order of transformers; greedy by default.

    Raises:
        ValueError: from transformers, if a value is out of range.
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        self.processors()

    def processors(self) -> LogitsProcessorList:
        """The logits processors these parameters stand for."""
        chain = LogitsProcessorList()
        if self.repetition_penalty != 1.0:
            chain.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        if not self.do_sample:
            return chain
        if self.temperature != 1.0:
            chain.append(TemperatureLogitsWarper(self.temperature))
        if self.top_k:
            chain.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1.0:
            chain.append(TopPLogitsWarper(self.top_p))
        if self.min_p is not None:
            chain.append(MinPLogitsWarper(self.min_p))
        return chain

    def pick(
        self, logits: torch.Tensor, context: Sequence[int], generator: torch.Generator, chain: LogitsProcessorList
    ) -> int:
        """Choose the next token.

        Args:
            logits: float32 tensor `[vocabulary]`.
            context: ids the sequence sees, for the repetition penalty.
            generator: its random state.
            chain: what `processors` returned.
        """
        scores = chain(torch.tensor([list(context)]), logits[None].clone())[0] if chain else logits
        if not self.do_sample:
            return int(scores.argmax())
        return int(torch.multinomial(scores.softmax(-1), 1, generator=generator))
