"""What the scheduler has the workers do beside vLLM's own step: plain data, the same for every rank."""

from __future__ import annotations

from dataclasses import dataclass, field

from multiverse.decoding.prompt_scores import Target

Move = tuple[int, int, int, int]
"""Source block and offset, destination block and offset, of one token in every layer."""


@dataclass(frozen=True)
class Scoring:
    """What to score of one request in one step.

    Attributes:
        root: id of the request that the client knows; that of a branch may be gone when its step's output comes.
        top: logprobs of how many of the likeliest tokens; -1 for the whole vocabulary.
        start: index in the request's sequence of the first token that is scheduled.
        targets: what is scored.
    """

    root: str
    top: int
    start: int
    targets: list[Target]


@dataclass
class StepPlan:
    """What the workers do in one step.

    Attributes:
        moves: KV tokens to copy before the step.
        deltas: by request id, what to add to the positions of its scheduled tokens.
        heads: by request id, of how many of its first scheduled tokens the delta is another one, and which.
        prompts: by id of a request that is new to the workers, how many of its tokens are prompt, if not all.
        scorings: by request id, which prompt tokens to score.
    """

    moves: list[Move] = field(default_factory=list)
    deltas: dict[str, int] = field(default_factory=dict)
    heads: dict[str, tuple[int, int]] = field(default_factory=dict)
    prompts: dict[str, int] = field(default_factory=dict)
    scorings: dict[str, Scoring] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.moves or self.deltas or self.heads or self.prompts or self.scorings)
