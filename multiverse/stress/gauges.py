"""What a server says of itself under `/metrics`, in the words of either host."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass

from multiverse.errors import RunError

_KV = ("vllm:kv_cache_usage_perc", "sglang:token_usage")
_RUNNING = ("vllm:num_requests_running", "sglang:num_running_reqs")
_WAITING = ("vllm:num_requests_waiting", "sglang:num_queue_reqs")
_MEMORY = ("process_resident_memory_bytes",)
_INTEGRITY = ("multiverse:integrity_failures_total",)
_BRANCHES, _PARKED = ("multiverse:running_branches",), ("multiverse:parked_sequences",)


@dataclass(frozen=True)
class Gauges:
    """A server at one moment.

    Attributes:
        kv_usage: share of the KV cache in use, the largest of all engines.
        running, waiting: requests.
        branches: running branches.
        parked: parked sequences.
        integrity_failures: times that the plugin's books and the host's differed.
        memory: resident MiB of the process that serves HTTP; `None` if the host does not say.
    """

    kv_usage: float
    running: float
    waiting: float
    branches: float
    parked: float
    integrity_failures: float
    memory: float | None

    @property
    def idle(self) -> bool:
        """Whether nothing is computed, waits or is held back."""
        return not (self.running or self.waiting or self.branches or self.parked)

    def __str__(self) -> str:
        told = f"KV {self.kv_usage:.1%}, {self.running:.0f} running, {self.waiting:.0f} waiting"
        told += f", {self.branches:.0f} branches, {self.parked:.0f} parked"
        return told if self.memory is None else f"{told}, {self.memory:.0f} MiB"


def read_gauges(url: str) -> Gauges:
    """Scrape the server at `url`.

    Raises:
        RunError: if it has no metrics, or none of the plugin's.
    """
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
            text = response.read().decode()
    except OSError as error:
        raise RunError(
            f"{url}/metrics can't be read ({error}): is the server there, and SGLang with --enable-metrics?"
        ) from error
    return from_text(text, url)


def from_text(text: str, source: str) -> Gauges:
    """Read Prometheus' text format."""
    from prometheus_client.parser import text_string_to_metric_families

    values: dict[str, list[float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values.setdefault(sample.name, []).append(sample.value)

    def find(names: Iterable[str]) -> list[float] | None:
        return next((values[name] for name in names if name in values), None)

    def need(names: tuple[str, ...]) -> list[float]:
        found = find(names)
        if found is None:
            raise RunError(
                f"{source}/metrics has none of {', '.join(names)}: was the server started with --plugin multiverse?"
            )
        return found

    memory = find(_MEMORY)
    return Gauges(
        kv_usage=max(need(_KV)),
        running=sum(need(_RUNNING)),
        waiting=sum(need(_WAITING)),
        branches=sum(need(_BRANCHES)),
        parked=sum(need(_PARKED)),
        integrity_failures=sum(need(_INTEGRITY)),
        memory=None if memory is None else sum(memory) / 2**20,
    )
