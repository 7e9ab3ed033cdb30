"""What a server tells about itself: sums and numbers of its histograms, over all engines."""

from __future__ import annotations

import urllib.request

from multiverse.errors import RunError

_TURNS = {"fork_seconds": "multiverse:fork_seconds", "join_seconds": "multiverse:join_seconds"}


def turn_metrics(url: str) -> dict[str, tuple[float, float]]:
    """Sum and number of the durations of forks and joins so far.

    Raises:
        RunError: if the server has no such metrics.
    """
    return {key: histogram(url, name) for key, name in _TURNS.items()}


def histogram(url: str, name: str) -> tuple[float, float]:
    """Sum and number of what was observed so far.

    Raises:
        RunError: if the server has no such metric.
    """
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
    except OSError as error:
        raise RunError(f"{url}/metrics: can't be read ({error})") from error
    if not any(line.startswith(f"{name}_count") for line in lines):
        raise RunError(f"{url}/metrics: has no {name}")
    both = ([float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}_{end}{{")] for end in _ENDS)
    total, number = map(sum, both)
    return total, number


_ENDS = ("sum", "count")
