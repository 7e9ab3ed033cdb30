"""Confidence intervals and a paired test. All of it is reproducible: resampling has a fixed seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000
_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)


def share_interval(right: Sequence[Sequence[bool]]) -> tuple[float, float, float]:
    """pass@1 and its 95 % interval.

    Args:
        right: per problem, whether each of its samples is right.

    Returns:
        Mean over problems of the share of right samples; lower and upper bound. Samples of one problem are alike, so
        it is problems that are counted: Wilson's interval with the number of independent samples that has the variance
        observed between problems (at least the number of problems, at most that of samples).
    """
    shares = np.array([sum(samples) / len(samples) for samples in right])
    mean, problems, samples = float(shares.mean()), len(right), sum(map(len, right))
    independent = float(problems)
    if problems > 1 and (variance := float(shares.var(ddof=1)) / problems) > 0:
        independent = min(max(mean * (1 - mean) / variance, problems), samples)
    return mean, *wilson(mean, independent)


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's score interval for a share of `count` independent samples."""
    centre = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Bootstrap interval (percentiles) of the mean of `values`."""
    means = _rng().choice(np.asarray(values), (RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(means, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return float(low), float(high)


def paired_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of the sign-flip test that paired differences are zero on average.

    With one sample per problem this is McNemar's exact test, up to the noise of resampling.
    """
    values = np.asarray(differences)
    values = values[values != 0]
    if not len(values):
        return 1.0
    signs = _rng().choice(np.array([-1.0, 1.0]), (RESAMPLES, len(values)))
    extreme = np.abs(signs @ values) >= abs(values.sum()) - 1e-9
    return float((extreme.sum() + 1) / (RESAMPLES + 1))


def _rng() -> Any:
    return np.random.default_rng(0)
