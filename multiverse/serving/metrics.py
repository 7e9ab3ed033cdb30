"""What a server counts about blocks, under the same Prometheus names on every host.

A `Tally` collects in the process that schedules; what it drains is plain data, so it can travel to wherever the host
keeps its metrics, and a `Exporter` enters it there. The exporter needs `prometheus_client`, which both hosts have.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any

from multiverse.structure.reasons import Reason

COUNTERS = {
    "forks": "Blocks that were forked, again after preemption included.",
    "joins": "Blocks whose branches were joined.",
    "spliced_tokens": "Tokens of branches whose KV was taken over at a join, not computed again.",
    "copied_tokens": "Tokens of prefixes that were copied for a branch, because a KV page is only partly theirs.",
    "moved_tokens": "Spliced tokens that were copied, because their KV page was only partly theirs.",
    "recomputed_tokens": "Tokens of trees computed again after preemption.",
    "cached_tokens": "Tokens of prompts with blocks found in the prefix cache.",
    "replays": "Trees that gave up their memory and were computed again.",
    "draft_tokens": "Tokens that were drafted for strands of trees, and tried.",
    "accepted_draft_tokens": "Tokens of finished requests that were drafted.",
    "slo_met": "Finished requests that were promised something, and were served in time.",
    "slo_missed": "Finished requests that were promised something, and were not served in time.",
    "integrity_failures": "Times that the plugin's books did not agree with the host's.",
}
GAUGES = {
    "running_branches": "Branches that are being decoded or wait for a place in the batch.",
    "parked_sequences": "Sequences that hold KV and wait: parents for their branches, closed branches for the others.",
    "held_branches": "Branches that could be decoded, and are held back for the sake of others.",
}
_FINE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_FEW = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16)
HISTOGRAMS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "block_width": ("Branches per block of finished requests.", (2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64)),
    "parallel_degree": (
        "Tokens over critical path, of finished requests with blocks.",
        (1.0, 1.1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 6, 8, 12, 16),
    ),
    "fork_seconds": ("From the end of a goal to the start of a branch of it.", _FINE),
    "join_seconds": ("From the end of a block's last branch to the start of what follows.", _FINE),
    "accepted_drafts_root": (
        "Drafted tokens that were accepted, per step with drafts of a root that forked.",
        _FEW,
    ),
    "accepted_drafts_branch": ("Likewise, per step with drafts of a branch.", _FEW),
    "slack_seconds": (
        "Before each step with branches: until the first of the requests without branches is late; below 0: it is.",
        (-1.0, -0.1, -0.01, 0.0, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    ),
    "step_time_error": (
        "Of each step that was predicted: |predicted / measured - 1|.",
        (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0),
    ),
}
FALLBACKS = "Blocks that were not forked, by reason."
_KEPT = 4096
"""Values of a histogram that wait for a reader. With one they never get so many; without, the oldest are dropped."""


class Tally:
    """Counts of one engine since they were last drained, and the gauges as they are."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Count from zero on."""
        self.totals = dict.fromkeys(COUNTERS, 0)
        self._drained = dict(self.totals)
        self._gauges = dict.fromkeys(GAUGES, 0)
        self._fallbacks: Counter[str] = Counter()
        self._samples: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter of `COUNTERS`."""
        self.totals[name] += by

    def observe(self, name: str, value: float) -> None:
        """Add a value to a histogram of `HISTOGRAMS`."""
        self._samples[name].append(value)

    def finished(self, record: Mapping[str, Any], widths: Iterable[int]) -> None:
        """A request with blocks, or with blocks that were not forked, has ended.

        Args:
            record: as `multiverse.serving.report.report` makes it.
            widths: number of branches of each of its blocks.
        """
        self._fallbacks.update(record["fallbacks"])
        self.count("recomputed_tokens", record["recomputed_tokens"])
        self.count("accepted_draft_tokens", record["accepted_draft_tokens"])
        if record["branches"]:
            self.observe("parallel_degree", record["parallel_degree"])
        for width in widths:
            self.observe("block_width", width)

    def drain(self, **gauges: int) -> dict[str, Any] | None:
        """What is new since the last time, as plain data; `None` if nothing is. Gauges not given are 0."""
        gauges = dict.fromkeys(GAUGES, 0) | gauges
        if gauges == self._gauges and self.totals == self._drained and not self._fallbacks and not self._samples:
            return None
        figures: dict[str, Any] = {
            "counts": {name: total - self._drained[name] for name, total in self.totals.items()},
            "fallbacks": dict(self._fallbacks),
            "samples": {name: list(values) for name, values in self._samples.items()},
            "gauges": gauges,
        }
        self._drained, self._gauges = dict(self.totals), gauges
        self._fallbacks.clear()
        self._samples.clear()
        return figures


class Exporter:
    """The metrics of one engine in Prometheus; all of them are there, as zeros, from the start.

    Args:
        model: value of the label `model_name`.
        engine: value of the label `engine`.
    """

    def __init__(self, model: str, engine: str = "0") -> None:
        def labelled(metric: Any, **more: str) -> Any:
            return metric.labels(model_name=model, engine=engine, **more)

        known = _collectors()
        self._metrics = {name: labelled(known[name]) for name in (*COUNTERS, *GAUGES, *HISTOGRAMS)}
        self._fallbacks = {str(reason): labelled(known["fallbacks"], reason=str(reason)) for reason in Reason}
        for name in GAUGES:
            self._metrics[name].set(0)  # where several processes write metrics, one that was never set is not there

    def enter(self, figures: Mapping[str, Any]) -> None:
        """Enter what a tally drained."""
        for name, amount in figures["counts"].items():
            self._metrics[name].inc(amount)
        for reason, amount in figures["fallbacks"].items():
            self._fallbacks[reason].inc(amount)
        for name, values in figures["samples"].items():
            for value in values:
                self._metrics[name].observe(value)
        for name, value in figures["gauges"].items():
            self._metrics[name].set(value)


@functools.cache
def _collectors() -> dict[str, Any]:
    """One collector per name and process: Prometheus refuses a second one."""
    from prometheus_client import Counter, Gauge, Histogram

    labels = ("model_name", "engine")
    found: dict[str, Any] = {name: Counter(f"multiverse:{name}", text, labels) for name, text in COUNTERS.items()}
    found["fallbacks"] = Counter("multiverse:fallbacks", FALLBACKS, (*labels, "reason"))
    for name, text in GAUGES.items():
        found[name] = Gauge(f"multiverse:{name}", text, labels, multiprocess_mode="mostrecent")
    for name, (text, buckets) in HISTOGRAMS.items():
        found[name] = Histogram(f"multiverse:{name}", text, labels, buckets=buckets)
    return found
