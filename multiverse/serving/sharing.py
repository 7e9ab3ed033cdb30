"""Which groups of a decode step are worth a pass of their own: never by a guess, by what was measured on this machine.

`multiverse bench` writes a table (experiment `prefix`): so many branches behind so many shared tokens, with so many KV
heads, take so much of the time that they take if each reads the prefix itself. What is wider, longer and has more KV
heads than a measured point saves at least as much, for it saves more reads at the same price.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from multiverse.errors import OptionError

GAIN = 0.98
"""What a measured step may take, of the host's own, to be worth it: nobody shall be slower by more than the noise."""
ALWAYS, NEVER = "always", "never"


class Shared(Protocol):
    """A `multiverse.attention.shared_prefix.Group`, which needs torch."""

    @property
    def rows(self) -> Sequence[int]: ...
    @property
    def length(self) -> int: ...


Group = TypeVar("Group", bound=Shared)


class Measured(NamedTuple):
    """A line of the table: `ratio` is the time of a step that shares, of one that does not."""

    width: int
    shared: int
    kv_heads: int
    ratio: float


class Gate:
    """Decides by a table.

    Args:
        table: what was measured.
    """

    def __init__(self, table: Iterable[Measured]) -> None:
        self.table = [row for row in table if row.ratio <= GAIN]

    def paying(self, groups: Sequence[Group], kv_heads: int) -> list[Group]:
        """Those that are worth it, inner groups judged by what they share as a whole."""
        return [
            group
            for group in groups
            if any(
                row.width <= len(group.rows) and row.shared <= group.length and row.kv_heads <= kv_heads
                for row in self.table
            )
        ]


def gate(setting: str) -> Gate:
    """What `--multiverse-shared-prefix` asks for: `always`, `never`, or a file of `multiverse bench`.

    Raises:
        OptionError: if there is no such file, or no such table in it.
    """
    if setting in (ALWAYS, NEVER):
        return Gate([Measured(2, 1, 1, 0.0)] if setting == ALWAYS else [])
    try:
        rows = json.loads(Path(setting).read_text(encoding="utf-8"))["prefix"]
        return Gate(Measured(*(row[name] for name in Measured._fields)) for row in rows)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise OptionError(
            f"shared_prefix must be 'always', 'never', or a table that `multiverse bench` wrote: {setting} ({error!r})"
        ) from error
