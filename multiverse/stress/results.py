"""How a request went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from multiverse.stress.asks import Ask

Outcome = Literal["same", "different", "answered", "left", "refused", "failed"]
PAUSED = "Generation is paused"
"""What vLLM 0.33 says with a 503 to whoever asks while an operator has paused it; 0.32 lets them wait."""


@dataclass(frozen=True)
class Answer:
    """A whole answer.

    Attributes:
        tokens: how many, over all branches.
        cut: whether it ended because tokens ran out.
    """

    text: str
    tokens: int
    branches: int = 0
    cut: bool = False


@dataclass(frozen=True)
class Result:
    """How a request went.

    Attributes:
        outcome: `same` or `different` for what is compared, `answered` for what is not, `left` if the client went away,
            `refused` if a malformed request got its 400, `failed` for whatever must not be.
        detail: what was wrong.
    """

    ask: Ask
    outcome: Outcome
    answer: Answer | None = None
    detail: str = ""
