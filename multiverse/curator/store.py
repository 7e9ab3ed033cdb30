"""The store: what was answered and what came of it, in SQLite, so that a run can be killed at any moment.

Outcomes are addressed by the chain's place in the input and are valid for one fingerprint of chain and settings;
replies are as in `multiverse.harness.reply_store`. One file is one shard; shards know nothing of each other.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiverse.errors import RunError
from multiverse.harness.reply_store import ReplyStore

_SCHEMA = "CREATE TABLE IF NOT EXISTS outcomes (position INTEGER PRIMARY KEY, fingerprint TEXT, data TEXT);"
_NAME = re.compile(r"(\d+)-of-(\d+)\.sqlite")


@dataclass(frozen=True, slots=True)
class Usage:
    """What was asked of one model in one stage."""

    stage: str
    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int


class Store(ReplyStore):
    """One shard's file.

    Raises:
        RunError: if the file is no store.
    """

    schema = ReplyStore.schema + _SCHEMA

    def has_outcome(self, position: int, fingerprint: str) -> bool:
        """Whether the chain at `position` is done, with these settings."""
        query = "SELECT 1 FROM outcomes WHERE position = ? AND fingerprint = ?"
        return self._db.execute(query, (position, fingerprint)).fetchone() is not None

    def put_outcome(self, position: int, fingerprint: str, outcome: dict[str, Any]) -> None:
        """Keep what came of a chain; an outcome for other settings is replaced."""
        row = (position, fingerprint, json.dumps(outcome, ensure_ascii=False))
        self._db.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?)", row)

    def drop_outcome(self, position: int) -> None:
        """Forget what came of a chain, if anything did."""
        self._db.execute("DELETE FROM outcomes WHERE position = ?", (position,))

    def outcomes(self) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Position, fingerprint and outcome, by position, read one after the other."""
        for position, fingerprint, data in self._db.execute("SELECT * FROM outcomes ORDER BY position"):
            yield position, fingerprint, json.loads(data)

    def usage(self) -> list[Usage]:
        """What was asked, by stage and model."""
        query = """SELECT stage, model, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens)
                   FROM replies GROUP BY stage, model ORDER BY stage, model"""
        return [Usage(*row) for row in self._db.execute(query)]


class Shards:
    """All stores of one output directory: `store/00003-of-00016.sqlite`."""

    def __init__(self, output: Path) -> None:
        self.directory = output / "store"

    def count(self) -> int:
        """How many shards the run was begun with; 0 if it was not begun.

        Raises:
            RunError: if the directory holds shards of two runs.
        """
        matches = [_NAME.fullmatch(path.name) for path in self.directory.glob("*.sqlite")]
        counts = {int(match[2]) for match in matches if match}
        if len(counts) > 1:
            raise RunError(f"{self.directory}: holds stores of runs with {sorted(counts)} shards; remove one kind")
        return counts.pop() if counts else 0

    def begin(self, count: int) -> None:
        """Make sure that the run goes on with the number of shards it was begun with.

        Raises:
            RunError: if it was begun with another.
        """
        begun = self.count()
        if begun not in (0, count):
            raise RunError(
                f"{self.directory}: was begun with {begun} shards, not {count}: go on with --shards {begun}"
                " or name another output"
            )

    def path(self, shard: int, count: int) -> Path:
        """The file of one shard."""
        return self.directory / f"{shard:05d}-of-{count:05d}.sqlite"

    def open_all(self, stack: ExitStack) -> Sequence[Store]:
        """Every store there is; closed with `stack`.

        Raises:
            RunError: if there is none.
        """
        count = self.count()
        if not count:
            raise RunError(f"{self.directory}: holds no store; was `multiverse curate` run with this output?")
        paths = [self.path(shard, count) for shard in range(count)]
        return [stack.enter_context(Store(path)) for path in paths if path.exists()]


def merged(stores: Sequence[Store]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The outcomes of all stores, by position."""
    return heapq.merge(*(store.outcomes() for store in stores), key=lambda row: row[0])


def total_usage(stores: Sequence[Store]) -> list[Usage]:
    """What was asked, by stage and model, over all stores."""
    sums: dict[tuple[str, str], list[int]] = {}
    for found in (usage for store in stores for usage in store.usage()):
        row = sums.setdefault((found.stage, found.model), [0, 0, 0])
        for i, value in enumerate((found.requests, found.prompt_tokens, found.completion_tokens)):
            row[i] += value
    return [Usage(stage, model, *row) for (stage, model), row in sorted(sums.items())]
