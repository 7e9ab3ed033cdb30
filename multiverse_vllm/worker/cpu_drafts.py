"""Drafts on a CPU: threads, and sampling beside them, where vLLM 0.32 leaves temperatures of rows with drafts unset.

Its replacement for a Triton kernel writes into a copy of its output if that is not int64: greedy answers are wrong,
too, once anybody in the batch samples (findings/vllm_cpu_drafts_beside_a_sampled_request.sh, 2026-11-30; 0.31 and 0.33
read alike). And where nobody has drafts, there are no logits to cut by `top_k`, which vLLM does not expect.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

import torch


def keep_threads() -> None:
    """Let numba have as many threads as OpenMP was told to have, unless it is there already: then it refuses others.

    vLLM's n-gram drafter is numba's; its first step gives torch that many, too, by default one per core. They wait for
    each other by spinning, and beside other work a step takes a hundred times as long
    (findings/numba_sets_the_threads_of_torch.sh, 2026-12-01, vLLM 0.32).
    """
    if "numba" not in sys.modules and (threads := os.environ.get("OMP_NUM_THREADS")):
        os.environ.setdefault("NUMBA_NUM_THREADS", threads.partition(",")[0])


def install() -> None:
    """On CPUs, let vLLM's rejection sampler expand what is per row by a function of ours, and cut what is there."""
    from vllm.v1.sample import rejection_sampler

    rejection_sampler.expand_batch_to_tokens = _by_ours(rejection_sampler.expand_batch_to_tokens)
    rejection_sampler.apply_sampling_constraints = _unless_empty(rejection_sampler.apply_sampling_constraints)


def _by_ours(original: Any) -> Any:
    @functools.wraps(original)
    def wrapped(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return (expand if x.device.type == "cpu" else original)(x, *args, **kwargs)

    return wrapped


def _unless_empty(constrain: Any) -> Any:
    @functools.wraps(constrain)
    def wrapped(logits: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        empty = logits.device.type == "cpu" and not len(logits)
        return logits if empty else constrain(logits, *args, **kwargs)

    return wrapped


def expand(
    x: torch.Tensor, cu_num_tokens: torch.Tensor, num_tokens: int, replace_from: int = 0, replace_to: int = 0
) -> torch.Tensor:
    """What each token of a batch has of its row; as vLLM's `expand_batch_to_tokens`.

    Args:
        x: `[rows]`.
        cu_num_tokens: int `[rows]`: how many tokens the rows have up to each.
        num_tokens: how many they have in all.
        replace_from, replace_to: a value, and what stands in its place.

    Returns:
        `[num_tokens]`, of the dtype of `x`.
    """
    each = torch.diff(cu_num_tokens, prepend=cu_num_tokens.new_zeros(1))
    replaced = torch.where(x == replace_from, torch.full_like(x, replace_to), x)
    found = replaced.repeat_interleave(each.to(x.device))
    assert len(found) == num_tokens, (len(found), num_tokens)
    return found
