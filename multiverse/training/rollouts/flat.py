"""An answer for frameworks that know no tree: prompt and response as one causal sequence, and what is lost by it."""

from __future__ import annotations

from dataclasses import dataclass

from multiverse.training.rollouts.tree import Rollout


@dataclass(frozen=True)
class Flat:
    """An answer in document order. Lists are of the response's ``n`` tokens.

    Attributes:
        prompt_ids: the prompt.
        response_ids: the answer with all branches, one behind the other.
        response_mask: 1 for what was sampled, 0 for what the engine wrote, which is context.
        logprobs: as the engine reported them; 0.0 where the mask is 0.
        exact: whether a causal forward of the flat sequence computes the token's logprob as the engine did: it saw all
            tokens before it, at the same positions. Of all others `logprobs` are not what such a forward says, not
            even with the same weights: a trainer that takes the ratio of both corrects for a difference that the
            weights did not make.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    response_mask: list[int]
    logprobs: list[float]
    exact: list[bool]

    @property
    def lost(self) -> int:
        """How many sampled tokens have a logprob that no causal forward gives."""
        return sum(sampled and not exact for sampled, exact in zip(self.response_mask, self.exact, strict=True))


def flatten(rollout: Rollout) -> Flat:
    """The answer as it reads, up to its first fork as it was computed."""
    start, causal = len(rollout.prompt_ids), 0
    for segment in rollout.layout.segments:
        if segment.hidden or segment.position != segment.start or segment.predecessor != segment.start - 1:
            break
        causal = segment.end
    logprobs: list[float | None] = rollout.document("logprobs")
    response: list[int] = rollout.document("token_ids")
    return Flat(
        prompt_ids=rollout.prompt_ids,
        response_ids=response,
        response_mask=[int(value is not None) for value in logprobs],
        logprobs=[value or 0.0 for value in logprobs],
        exact=[start + at < causal for at in range(len(response))],
    )
