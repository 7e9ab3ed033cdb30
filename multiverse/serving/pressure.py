"""Who gives memory back first, and who comes first when there is some: one order, the same on every host.

The senior of two requests is the one that matters more to the operator, and among equals the one that came first. The
most senior tree is never touched, so it ends some day, and then the next one is the most senior: there is progress.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Ranked(Protocol):
    """A request, or the tree of one.

    Attributes:
        rank: the lower the more important: vLLM's `priority`; the negative of SGLang's, if higher means more there.
        arrived: when it came, in seconds on the host's clock.
    """

    @property
    def rank(self) -> int: ...

    @property
    def arrived(self) -> float: ...


Request = TypeVar("Request", bound=Ranked)


def seniority(request: Ranked) -> tuple[int, float]:
    """Sorts by it, the most senior comes first."""
    return request.rank, request.arrived


def senior_first(requests: Iterable[Request]) -> list[Request]:
    """In the order in which they are served."""
    return sorted(requests, key=seniority)


def victims(requests: Iterable[Request]) -> list[Request]:
    """In the order in which they give memory back: the most junior first, the most senior never."""
    return senior_first(requests)[:0:-1]
