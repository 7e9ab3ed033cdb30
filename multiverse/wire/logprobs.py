"""Log-probabilities as hosts report them in trees, and means over them.

SGLang 0.5.23 reports what its softmax rounds to 0 as the least float32 (-3.4e38), in every row of a batch in which
anybody samples. Trees carry the number as it came; in a mean it would outweigh all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

FLOOR = -1e38
"""Nats. No model says less; what is reported below it is a host's way to say that it can't tell."""


def is_rated(logprob: float | None) -> TypeGuard[float]:
    """Whether a host rated the token: it is `None` where the engine wrote it, below `FLOOR` where a host can't tell."""
    return logprob is not None and logprob > FLOOR


def mean_logprob(tree: Iterable[Mapping[str, Any]]) -> float | None:
    """The mean over all tokens of a record's `tree` that the host rated, in nats; `None` if it rated none.

    Args:
        tree: its strands, each with `logprobs`, which a request has to ask for.
    """
    found = [value for strand in tree for value in strand.get("logprobs") or () if is_rated(value)]
    return sum(found) / len(found) if found else None
