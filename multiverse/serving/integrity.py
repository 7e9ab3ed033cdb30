"""Whether an adapter's books agree with its host's (invariant I8): adapters give books and get sentences.

A plugin that hands out a host's memory by reference can leak it without anybody noticing for hours. So the books are
compared whenever the engine has nothing to do, and every so many steps if the operator asks for it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet

from multiverse.serving.metrics import Tally

_SHOWN = 5
"""So many ids or units are named in one sentence; of the others it says how many there are."""


def strangers(what: str, ours: AbstractSet[str], known: AbstractSet[str]) -> list[str]:
    """Ids that one side has and the other does not know; `what` says what they are of, such as `members`."""
    lost = sorted(ours - known)
    return [f"{what} that the host does not know: {_listed(lost)}"] if lost else []


def repeated(what: str, entries: Iterable[str]) -> list[str]:
    """What stands more than once where it may stand once at most, such as in all queues together."""
    seen: set[str] = set()
    twice: set[str] = set()
    for entry in entries:
        (twice if entry in seen else seen).add(entry)
    return [f"more than once in {what}: {_listed(sorted(twice))}"] if twice else []


def leftovers(counts: Mapping[str, int]) -> list[str]:
    """What is left of anything, by its name, of which nothing should be left."""
    return [f"{name}: {count} left" for name, count in counts.items() if count]


def ownership(unit: str, owners: Mapping[int, Collection[str]], counted: Mapping[int, int]) -> list[str]:
    """Units of memory (invariant I1) whose owners are not as many as the host counts references.

    Args:
        unit: what one is called: `block`, `slot`.
        owners: by unit, who has it, once per reference. What nobody has may be absent.
        counted: by unit, the references that the host counts; 0 if it is free. What is free may be absent.
    """
    problems = []
    wrong = [one for one in sorted(owners.keys() | counted.keys()) if len(owners.get(one, ())) != counted.get(one, 0)]
    for one in wrong[:_SHOWN]:
        names = ", ".join(sorted(owners.get(one, ()))) or "nobody"
        problems.append(f"{unit} {one} has {counted.get(one, 0)} references and belongs to {names}")
    if len(wrong) > _SHOWN:
        problems.append(f"and {len(wrong) - _SHOWN} more {unit}s")
    return problems


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


class IntegrityCheck:
    """When the books are compared, and what happens if they do not agree.

    Args:
        interval: compare every so many steps also while requests run; 0: only when nothing does.
        tally: where failures are counted.
        log: the host's.
    """

    def __init__(self, interval: int, tally: Tally, log: logging.Logger) -> None:
        self._interval = interval
        self._tally = tally
        self._log = log
        self._steps = 0
        self._known: list[str] = []

    def is_due(self) -> bool:
        """Whether the books are to be compared after this step, which is hereby counted, though requests run."""
        self._steps += 1
        return self._interval > 0 and self._steps % self._interval == 0

    def enter(self, problems: list[str]) -> None:
        """Log and count what was found; the same problems are told once, however often they are found again."""
        if problems and problems != self._known:
            self._tally.count("integrity_failures")
            self._log.error("multiverse: the books do not agree with the host's: %s", "; ".join(problems))
        self._known = problems
