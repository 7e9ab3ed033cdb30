"""The dry run: what a corpus would cost, before anything is asked.

The first prompt of every chain is rendered and measured; what follows is estimated from it, by shares that fit the
example corpus and its terse teacher. A model that thinks before it answers writes several times as much.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from multiverse.curator.chains import Chain, Problem
from multiverse.curator.config import Config, StageName
from multiverse.curator.stages import Summary

CHARACTERS_PER_TOKEN = 3.5
RETRIES = 1.2
"""Requests per request that would be enough without refused replies."""

# Per stage: prompt = first prompt x share + constant, reply = sentences x tokens each + constant; in tokens.
_SHARES: dict[StageName, tuple[float, float, float, float]] = {
    "summary": (1.0, 0.0, 3.5, 25.0),
    "grouping": (1.0, 200.0, 1.0, 30.0),
    "restructuring": (0.1, 550.0, 0.7, 20.0),
    "refilling": (1.0, 150.0, 1.0, 20.0),
    "mapreduce": (1.0, 500.0, 4.0, 60.0),
    "judge": (0.8, 400.0, 0.3, 20.0),
}


@dataclass
class Estimate:
    """Of one stage: its model and sums over the corpus; `cost` is `None` if the model has no price."""

    stage: str
    model: str
    requests: float = 0
    prompt_tokens: float = 0
    completion_tokens: float = 0
    cost: float | None = None


def estimate(config: Config, chains: Iterable[Chain | Problem]) -> tuple[list[Estimate], int]:
    """What the whole corpus would take, stage by stage, and the number of its chains. Nothing is asked or written."""
    names = [name for name in _SHARES if name != "judge" or config.checks.judge]
    found = {name: Estimate(name, config.for_stage(name)[0]) for name in names}
    count = 0
    for chain in chains:
        if isinstance(chain, Problem):
            continue
        count += 1
        first = sum(len(message["content"]) for message in Summary(chain).messages("")) / CHARACTERS_PER_TOKEN
        for name in names:
            share, constant, each, start = _SHARES[name]
            found[name].requests += RETRIES
            found[name].prompt_tokens += RETRIES * (first * share + constant)
            found[name].completion_tokens += RETRIES * (len(chain.sentences) * each + start)
    for row in found.values():
        if price := config.prices.get(row.model):
            row.cost = (row.prompt_tokens * price.input + row.completion_tokens * price.output) / 1e6
    return list(found.values()), count
