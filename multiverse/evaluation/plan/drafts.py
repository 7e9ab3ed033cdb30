"""Speculative decoding on paper: what drafts gain, by draft length and rows in a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multiverse.evaluation.plan.machine import Roofline


def tokens_per_step(length: int, acceptance: float) -> float:
    """Of a row, on the average.

    Args:
        length: of a draft; all of it is computed.
        acceptance: the share of drafted tokens that are accepted, of those before which all were: `accepted` drafted
            ones have the probability `acceptance ** accepted`, and one more token comes in any case.
    """
    return sum(acceptance**accepted for accepted in range(length + 1))


def rates(
    roofline: Roofline, rows: Sequence[int], lengths: Sequence[int], acceptance: float, context: float
) -> dict[int, dict[int, float]]:
    """By rows in a step and draft length: tokens per second. Making drafts takes no time.

    Args:
        rows: each branch is one.
        context: tokens that each row attends to; they are loaded once for all that it computes in a step.
    """
    return {
        count: {length: count * tokens_per_step(length, acceptance) / _seconds(roofline, count, length, context)
                for length in lengths}
        for count in rows
    }  # fmt: skip


def _seconds(roofline: Roofline, rows: int, length: int, context: float) -> float:
    computed, loaded = np.array(float(rows * (length + 1))), np.array(rows * context)
    return float(roofline.step(computed, (length + 1) * loaded, loaded, np.array(float(rows))))
