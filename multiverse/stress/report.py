"""What came of a server under stress: rounds, a verdict with its reasons, a CSV."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from multiverse.stress.asks import Ask
from multiverse.stress.gauges import Gauges
from multiverse.stress.results import Outcome, Result
from multiverse.structure.dialects import Dialect

OUTCOMES: tuple[Outcome, ...] = ("same", "different", "answered", "left", "refused", "failed")


@dataclass(frozen=True)
class Settings:
    """What is asked of a server, and what it is allowed.

    Attributes:
        questions: what users say.
        rounds, requests: so many rounds of so many requests.
        concurrency: requests at once.
        max_tokens: of an answer.
        patience: seconds for an answer, and for coming to rest after a round.
        may_differ: share of compared answers that may differ, for servers whose arithmetic depends on the batch.
        max_growth: MiB by which memory may grow from the first round to the last.
        mixed: share of the requests that is drawn from all documented fields.
        operate: whether an operator pauses, resets and gives new weights meanwhile.
        promises: whether requests name what they are to be served in, under `--multiverse-admission slack`.
        first: number of the first round, which its requests depend on.
        only: numbers of the requests of a round that are sent; all if not given.
    """

    url: str
    dialect: Dialect
    questions: Sequence[str]
    rounds: int = 10
    requests: int = 60
    concurrency: int = 16
    max_tokens: int = 400
    patience: float = 120.0
    may_differ: float = 0.0
    max_growth: float = 512.0
    seed: int = 0
    mixed: float = 0.5
    operate: bool = False
    promises: bool = False
    first: int = 1
    only: frozenset[int] | None = None


@dataclass
class Round:
    """One round: what came of it, and what was left."""

    number: int
    results: list[Result]
    seconds: float
    peak: float
    rest: Gauges
    settled: float | None
    """Seconds until the server had come to rest; `None` if it did not."""

    @property
    def counts(self) -> Counter[Outcome]:
        """Number of requests by outcome."""
        return Counter(result.outcome for result in self.results)


@dataclass
class Report:
    """All rounds, and what is wrong with them.

    Attributes:
        start: the quiet server before the first round.
        compared: number of questions whose answers are compared.
        gone: what was heard when the server was not there any more.
        unanswered: what was on its way then.
        lost: how that round went until then.
    """

    settings: Settings
    start: Gauges
    compared: int
    rounds: list[Round] = field(default_factory=list)
    gone: str | None = None
    unanswered: list[Ask] = field(default_factory=list)
    lost: list[Result] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Everything that must not be; empty if the server held."""
        found = [] if self.compared else ["no question is answered twice alike by the quiet server: nothing compared"]
        found += [f"after round {len(self.rounds)} the server is gone: {self.gone}"] if self.gone else []
        for each in self.rounds:
            found += [
                f"round {each.number}: {result.ask.kind}: {result.detail}"
                for result in each.results
                if result.outcome == "failed"
            ]
            if each.rest.integrity_failures > self.start.integrity_failures:
                found.append(f"round {each.number}: the plugin's books and the host's differ, see the server's log")
            if each.settled is None:
                found.append(f"round {each.number}: not at rest after {self.settings.patience:.0f} s: {each.rest}")
        return found + self._differences() + self._growth()

    def _differences(self) -> list[str]:
        results = [result for each in self.rounds for result in each.results]
        differing = [result for result in results if result.outcome == "different"]
        compared = len(differing) + sum(result.outcome == "same" for result in results)
        if len(differing) <= self.settings.may_differ * compared:
            return []
        first = differing[0]
        return [
            f"{len(differing)} of {compared} undisturbed answers differ; the first: {first.ask.kind}, {first.detail}"
        ]

    def _growth(self) -> list[str]:
        known = [each.rest.memory for each in self.rounds if each.rest.memory is not None]
        grown = known[-1] - known[0] if known else 0.0
        return [f"memory grew by {grown:.0f} MiB"] if grown > self.settings.max_growth else []

    def write(self, file: Path) -> None:
        """One line per round, as CSV."""
        gauges = ("kv_usage", "running", "waiting", "branches", "parked", "memory")
        with file.open("w", newline="", encoding="utf-8") as output:
            lines = csv.writer(output)
            lines.writerow(["round", "seconds", *OUTCOMES, "tokens", "forked_branches", "kv_peak", "settled", *gauges])
            for each in self.rounds:
                answers = [result.answer for result in each.results if result.answer]
                totals = [sum(answer.tokens for answer in answers), sum(answer.branches for answer in answers)]
                rest = [getattr(each.rest, name) for name in gauges]
                counts = [each.counts[outcome] for outcome in OUTCOMES]
                settled = None if each.settled is None else round(each.settled, 1)
                lines.writerow(
                    [each.number, round(each.seconds, 1), *counts, *totals, round(each.peak, 4), settled, *rest]
                )
