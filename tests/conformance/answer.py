"""What every host under test looks like to the suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Answer:
    """One finished request: completion ids in document order, a logprob per token if asked, why it ended.

    `entries` has all that was reported for each token, by token id: its own logprob and those of others; `scores` the
    same of each token of the prompt, `None` if it has no logprob. `record` is what the host tells about its blocks
    (`multiverse.serving.report`); `None` if there was nothing to tell.
    """

    ids: list[int]
    logprobs: list[float] | None
    finish_reason: str
    record: dict[str, Any] | None = None
    entries: list[dict[int, float]] | None = None
    scores: list[dict[int, float] | None] | None = None


class Host(Protocol):
    """An engine in this process.

    Attributes:
        penalty_lag: how many of the last tokens penalties don't count yet. 1 under SGLang's overlap scheduler, which
            counts a token a step after it was sampled, with and without the plugin.
        steps: in which something was computed, so far.
        head_tokens: how many of its parent's last tokens each branch computes for itself, so that a fork takes no step.
    """

    penalty_lag: int
    steps: int
    head_tokens: int

    def generate(self, prompts: Sequence[list[int]], **sampling: Any) -> list[Answer]:
        """Decode `prompts` at the same time. Sampling parameters as in the OpenAI API; greedy if not given.

        `multiverse` holds a request's options (`serving.options`); with `n` there are that many answers to each.
        """

    def generate_each(self, requests: Sequence[tuple[list[int], dict[str, Any]]]) -> list[Answer]:
        """Decode prompts at the same time, each with sampling parameters of its own."""

    def start(self, prompt: list[int], **sampling: Any) -> str:
        """Add a request; returns its id."""

    def step(self) -> dict[str, list[int]]:
        """One engine step: the new tokens that clients see, by request id."""

    def own_calls(self) -> dict[str, int]:
        """One engine step: the calls of the package's functions in it, by function (`own_calls.py`)."""

    def abort(self, request: str) -> None:
        """What happens when a client goes away."""

    def leftovers(self) -> dict[str, int]:
        """KV blocks, requests and anything else still held; all zero when idle."""

    def integrity(self) -> list[str]:
        """What of the adapter's books does not agree with the host's, at any moment between two steps."""

    def counters(self) -> dict[str, int]:
        """`scheduled` tokens, `forks`, `joins`, `replays`, `cached_tokens` (spliced KV that was found again) so far."""
