"""What a policy is asked about a step, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Family(NamedTuple):
    """The open branches of one request that can run or be held, in document order; at least one.

    Attributes:
        held_since: by branch, the number of the step since which it is held; that of this step if it is not.
        read: tokens that they attend to, all together.
        slack: seconds until their request is late.
    """

    held_since: Sequence[int]
    read: int = 0
    slack: float = math.inf


class Step(NamedTuple):
    """A step that is about to be scheduled.

    Attributes:
        number: counts them.
        families: of the requests that have branches open.
        width, read: tokens that everybody else computes, and attends to.
        slack: the least of those that have no branches open, in seconds: the step is to be no longer.
        pace: the least time that a step may take for good, of the same requests.
    """

    number: int
    families: Sequence[Family]
    width: int = 0
    read: int = 0
    slack: float = math.inf
    pace: float = math.inf


class Plan(NamedTuple):
    """Who runs: of each family its first branches, and one more that was held for long.

    Attributes:
        counts: by family, how many; at least one.
        overdue: number of a family, and of a branch in it.
    """

    counts: Sequence[int]
    overdue: tuple[int, int] | None = None

    def runs(self, family: int, branch: int) -> bool:
        """Whether a branch runs in this step; else it is held."""
        return branch < self.counts[family] or self.overdue == (family, branch)
