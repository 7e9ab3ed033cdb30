"""Policies of admission on a simulated server: who is served in time, over arrival rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

import numpy as np

from multiverse.evaluation.plan.machine import Roofline
from multiverse.evaluation.plan.mix import make_up
from multiverse.evaluation.plan.server import Asked, serve
from multiverse.serving.admission.pace import Slo
from multiverse.serving.admission.policies import make_policy

POLICIES = ("eager", "off", WATCHING := "slack")
"""The first is a server's default; `WATCHING` looks at what requests are promised."""
WARM = 1 / 3
"""Of the time in which requests come, so much passes before what ends counts: the server is empty at first."""
_MEAN = 239
"""Tokens of an answer that is made up, about."""


@dataclass(frozen=True)
class Row:
    """One policy at one rate.

    Attributes:
        attainment: share of the requests that were served in time.
        goodput: those of them per second (`per_second`).
    """

    rate: float
    policy: str
    attainment: float
    goodput: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)


def per_second(ended: Iterable[float], span: float) -> float:
    """Of requests that came within `span` seconds and were served in time: how many per second, as the server fills
    no more and still gets new ones.

    Args:
        ended: when, in seconds after the first could come.
    """
    return sum(WARM * span <= end <= span for end in ended) / (span - WARM * span)


def over_policies(
    roofline: Roofline,
    rates: Sequence[float],
    tokens: int,
    prompt: int,
    slo: float,
    share: float = 0.8,
    requests: int = 400,
    seed: int = 0,
) -> list[Row]:
    """All policies, at each rate with the same arrivals.

    Args:
        tokens: of an answer, about.
        prompt: tokens of a prompt, which is in the prefix cache, but no other request's.
        slo: what everybody is promised, in times per token of a plain answer that is alone.
        share: of the answers that have blocks.
    """

    def seconds(width: int, read: int) -> float:
        return float(roofline.step(np.array([float(width)]), np.array([float(read)]))[0])

    scale = max(1, round(tokens / _MEAN))
    promised = Slo(tpot=slo * seconds(1, prompt + scale * 40))
    rows = []
    for rate in rates:
        rng, at, asked, span = Random(seed), 0.0, [], requests / rate
        while (at := at + rng.expovariate(rate)) <= span:
            made = make_up(rng, share, scale)
            asked.append(Asked(at, made.before, made.branches, made.behind, promised, prompt))
        for policy in POLICIES:
            found = serve(asked, make_policy(policy), seconds, roofline.kv_tokens)
            in_time = [end for end, met in zip(found.ended, found.met, strict=True) if met]
            rows.append(Row(rate, policy, found.attainment, per_second(in_time, span)))
    return rows
