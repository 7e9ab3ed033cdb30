"""What it is worth to read a prefix once that branches share: on paper, by width and prefix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multiverse.evaluation.plan.machine import Roofline


def sharing(
    roofline: Roofline, prefixes: Sequence[int], widths: Sequence[int], own: int, batch: int = 1
) -> list[list[float | None]]:
    """Seconds of a decode step in which each branch loads the prefix, by those of one in which they load it once.

    Args:
        prefixes: tokens that the branches of a request share; a row each.
        widths: branches of a request; a column each.
        own: tokens that each branch has of its own.
        batch: requests at once, which share nothing with each other.

    Returns:
        `None` where the KV does not fit.
    """
    return [[_gain(roofline, prefix, width, own, batch) for width in widths] for prefix in prefixes]


def _gain(roofline: Roofline, prefix: int, width: int, own: int, batch: int) -> float | None:
    tokens = float(batch * (prefix + width * own))
    if tokens > roofline.kv_tokens:
        return None
    computed, read = np.array(float(batch * width)), np.array(float(batch * width * (prefix + own)))
    return float(roofline.step(computed, read) / roofline.step(computed, read, np.array(tokens)))
