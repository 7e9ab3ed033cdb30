"""Figures of a corpus, gathered one outcome at a time: what `multiverse curate stats` and the report show."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from multiverse.curator.config import Price
from multiverse.curator.outcome import STAGES
from multiverse.curator.store import Usage

_MEANS = ("tokens", "critical_path", "parallel_degree", "sentences", "sequential_characters", "parallel_characters")


@dataclass
class StageFigures:
    """How one stage went. Requests for different blocks of a chain count apart.

    Attributes:
        asked: replies that were judged.
        passed: those that were accepted.
        first, first_passed: the same, of first tries only.
        reasons: the most frequent reasons against the others, without their details.
    """

    asked: int = 0
    passed: int = 0
    first: int = 0
    first_passed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def frequent(self, count: int = 10) -> dict[str, int]:
        """The most frequent reasons; of equally frequent ones those that come first in the alphabet."""
        return dict(sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))[:count])

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-ready data."""
        counts = {"asked": self.asked, "passed": self.passed, "first": self.first, "first_passed": self.first_passed}
        return counts | {"reasons": self.frequent()}


@dataclass
class CorpusStatistics:
    """Figures of a corpus.

    Attributes:
        blocks, widths, depths: how many examples (of `widths`: blocks) have which value.
        collective, selective: groups of either kind.
        sums: totals over accepted examples with a block.
        rejected_at: refused chains by stage.
        usage: requests and tokens by stage and model.
    """

    chains: int = 0
    accepted: int = 0
    parallel: int = 0
    rejected_at: Counter[str] = field(default_factory=Counter)
    blocks: Counter[int] = field(default_factory=Counter)
    widths: Counter[int] = field(default_factory=Counter)
    depths: Counter[int] = field(default_factory=Counter)
    collective: int = 0
    selective: int = 0
    sums: Counter[str] = field(default_factory=Counter)
    stages: dict[str, StageFigures] = field(default_factory=dict)
    usage: list[Usage] = field(default_factory=list)

    def add(self, outcome: Mapping[str, Any]) -> None:
        """Count one outcome (its `to_dict`)."""
        self.chains += 1
        for attempt in outcome["attempts"]:
            self._add_attempt(attempt)
        if outcome["status"] != "accepted":
            self.rejected_at[outcome["stage"]] += 1
            return
        self.accepted += 1
        figures = outcome["figures"]
        self.blocks[figures["blocks"]] += 1
        self.depths[figures["depth"]] += 1
        if not figures["blocks"]:
            return
        self.parallel += 1
        self.widths.update(figures["widths"])
        self.collective += figures["collective"]
        self.selective += figures["selective"]
        for name in _MEANS:
            self.sums[name] += figures[name]

    def _add_attempt(self, attempt: Mapping[str, Any]) -> None:
        stage = self.stages.setdefault(attempt["stage"], StageFigures())
        stage.asked += 1
        stage.passed += not attempt["reasons"]
        if attempt["number"] == attempt["round"] == 0:
            stage.first += 1
            stage.first_passed += not attempt["reasons"]
        stage.reasons.update({_kind(reason) for reason in attempt["reasons"]})

    @property
    def means(self) -> dict[str, float]:
        """Means per accepted example with a block."""
        return {name: self.sums[name] / self.parallel for name in _MEANS} if self.parallel else {}

    def cost(self, prices: Mapping[str, Price]) -> float | None:
        """What was paid, by `prices` per million tokens; `None` if a model has no price."""
        if any(used.model not in prices for used in self.usage):
            return None
        return sum(
            (used.prompt_tokens * prices[used.model].input + used.completion_tokens * prices[used.model].output) / 1e6
            for used in self.usage
        )

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-ready data, in a fixed order."""
        stages = {name: self.stages[name].to_dict() for name in STAGES if name in self.stages}
        return {
            "chains": self.chains,
            "accepted": self.accepted,
            "with_blocks": self.parallel,
            "rejected_at": dict(sorted(self.rejected_at.items())),
            "blocks_per_example": dict(sorted(self.blocks.items())),
            "widths": dict(sorted(self.widths.items())),
            "depths": dict(sorted(self.depths.items())),
            "groups": {"collective": self.collective, "selective": self.selective},
            "means": self.means,
            "stages": stages,
            "usage": [asdict(used) for used in self.usage],
        }


def _kind(reason: str) -> str:
    """A reason without its details, so that equal ones can be counted."""
    return re.sub(r"\d+(?:[.,]\d+)*", "N", re.split(r"[:(]", reason)[0]).replace("N, N", "N").strip()
