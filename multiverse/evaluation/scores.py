"""From samples to the figures of a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from multiverse.evaluation.grading import Verdict
from multiverse.evaluation.intervals import share_interval
from multiverse.evaluation.samples import Sample


@dataclass(frozen=True)
class Score:
    """Figures of one task. Shares are 0 to 1; `tokens`, `critical_path` and `seconds` are means per answer.

    Attributes:
        accuracy, low, high: pass@1 and its 95 % interval.
        no_answer: share of answers that state none.
        trigger_rate: share of answers with a block.
        well_formed: share of answers that follow the grammar.
        parallel_degree: all tokens / all critical paths, the #parallel of the paper.
        fallbacks: blocks that were not forked, by reason.
        counted: who counted tokens.
    """

    task: str
    problems: int
    samples: int
    accuracy: float
    low: float
    high: float
    no_answer: float
    trigger_rate: float
    well_formed: float
    parallel_degree: float
    critical_path: float
    tokens: float
    seconds: float
    fallbacks: dict[str, int]
    counted: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)


def scores(samples: Iterable[Sample]) -> list[Score]:
    """One score per task, in the order in which tasks appear."""
    return [_score(task, found) for task, found in group(samples, "task").items()]


def group(samples: Iterable[Sample], name: str) -> dict[str, list[Sample]]:
    """The samples by the value of an attribute, in the order in which values appear."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(getattr(sample, name), []).append(sample)
    return groups


def _score(task: str, samples: Sequence[Sample]) -> Score:
    by_problem = group(samples, "id")
    accuracy, low, high = share_interval([[s.correct for s in found] for found in by_problem.values()])
    fallbacks: Counter[str] = Counter()
    for sample in samples:
        fallbacks.update(sample.fallbacks)
    tokens, critical = sum(s.tokens for s in samples), sum(s.critical_path for s in samples)
    count = len(samples)
    return Score(
        task=task,
        problems=len(by_problem),
        samples=count,
        accuracy=accuracy,
        low=low,
        high=high,
        no_answer=sum(s.verdict == Verdict.NO_ANSWER for s in samples) / count,
        trigger_rate=sum(s.blocks > 0 for s in samples) / count,
        well_formed=sum(s.well_formed for s in samples) / count,
        parallel_degree=tokens / critical if critical else 1.0,
        critical_path=critical / count,
        tokens=tokens / count,
        seconds=sum(s.seconds for s in samples) / count,
        fallbacks=dict(sorted(fallbacks.items())),
        counted="+".join(sorted({s.counted for s in samples})),
    )
