"""What is learnt from the sampled tokens of a row. All tensors are float32 `[k]`, for its `k` predictions."""

from __future__ import annotations

import torch

from multiverse.training.grpo.settings import Grpo
from multiverse.training.rollouts.batch import Batch


def clipped(batch: Batch, logprobs: torch.Tensor, settings: Grpo) -> torch.Tensor:
    """The loss of every token: what the advantage says, until its probability has changed far enough.

    Args:
        logprobs: of the model that learns, with gradients.
    """
    ratio = (logprobs - batch.old_logprobs).exp()
    bounded = ratio.clamp(1 - settings.clip, 1 + settings.upper_clip)
    return -torch.minimum(ratio * batch.advantages, bounded * batch.advantages)


def divergence(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """An estimate of how far the model is from the reference, from the logprobs of both: never below 0."""
    gap = reference - logprobs
    return gap.exp() - gap - 1
