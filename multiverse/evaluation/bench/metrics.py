"""What a server tells about itself, over all its engines."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass

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
    lines = _lines(url, f"{name}_count")
    return _total(lines, f"{name}_sum"), _total(lines, f"{name}_count")


@dataclass(frozen=True)
class Drafted:
    """What vLLM has counted.

    Attributes:
        steps: of its engines that said anything.
        tokens: of answers.
        drafts: how often something was drafted for a row and tried.
        accepted: how often its first token was accepted, its second, and so on, as far as the server drafts.
    """

    steps: float
    tokens: float
    drafts: float
    accepted: tuple[float, ...]

    def since(self, before: Drafted) -> Drafted:
        """What was counted after `before`."""
        accepted = tuple(now - then for now, then in zip(self.accepted, before.accepted, strict=True))
        steps, tokens, drafts = self.steps - before.steps, self.tokens - before.tokens, self.drafts - before.drafts
        return Drafted(steps, tokens, drafts, accepted)


def drafted(url: str) -> Drafted:
    """What vLLM has counted so far, over all engines.

    Raises:
        RunError: if the server does not draft.
    """
    try:
        lines = _lines(url, f"{_SPECULATION}drafts_total")
    except NotCountedError as error:
        raise RunError(f"{url}: does not draft; `--speculative-config` lets vLLM do so (docs/drafts.md)") from error
    at = sorted({int(found.group(1)) for line in lines if (found := _POSITION.match(line))})
    return Drafted(
        _total(lines, "vllm:iteration_tokens_total_count"),
        _total(lines, "vllm:generation_tokens_total"),
        _total(lines, f"{_SPECULATION}drafts_total"),
        tuple(_total([line for line in lines if f'position="{place}"' in line], _ACCEPTED) for place in at),
    )


_SPECULATION = "vllm:spec_decode_num_"
_ACCEPTED = f"{_SPECULATION}accepted_tokens_per_pos_total"
_POSITION = re.compile(_ACCEPTED + r'{.*\bposition="(\d+)"')


class NotCountedError(RunError):
    """A server has no such metric."""


def _lines(url: str, needed: str) -> list[str]:
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
            lines: list[str] = answer.read().decode().splitlines()
    except OSError as error:
        raise RunError(f"{url}/metrics: can't be read ({error})") from error
    if not any(line.startswith(needed) for line in lines):
        raise NotCountedError(f"{url}/metrics: has no {needed}")
    return lines


def _total(lines: Iterable[str], name: str) -> float:
    """Over all engines."""
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))
