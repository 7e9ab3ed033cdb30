"""What an endpoint answered, kept in SQLite, so that a run can be killed at any moment and nothing is asked twice.

Replies are addressed by what was asked: a hash of stage, model, request and try. Every write is a transaction of its
own in a write-ahead log, which a killed process can't tear.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from multiverse.errors import RunError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, stage TEXT, model TEXT, try INTEGER, text TEXT, finish_reason TEXT,
    prompt_tokens INTEGER, completion_tokens INTEGER, seconds REAL, figures TEXT
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the endpoint.

    Attributes:
        seconds: from the request to the answer, waiting for one's turn not counted; retries are.
        reasoning: what a server with a reasoning parser tells beside the text.
        figures: what a Multiverse server tells in `usage.multiverse`; empty from any other.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    reasoning: str = ""


def request_key(stage: str, model: str, messages: Any, parameters: dict[str, Any], number: int) -> str:
    """The address of the reply to a request; `number` tells repeated tries of the same request apart."""
    asked = json.dumps([stage, model, messages, parameters, number], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(asked.encode()).hexdigest()


class ReplyStore:
    """One file. Made if it isn't there.

    Raises:
        RunError: if the file is no store.
    """

    schema = _SCHEMA

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(self.schema)
            if "reasoning" not in {column[1] for column in self._db.execute("PRAGMA table_info(replies)")}:
                self._db.execute("ALTER TABLE replies ADD COLUMN reasoning TEXT NOT NULL DEFAULT ''")
        except sqlite3.Error as error:
            raise RunError(f"{path}: can't be used as a store ({error})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def reply(self, key: str) -> Reply | None:
        """What was answered to the request with this key."""
        query = """SELECT text, finish_reason, prompt_tokens, completion_tokens, seconds, figures, reasoning
                   FROM replies WHERE key = ?"""
        row = self._db.execute(query, (key,)).fetchone()
        if row is None:
            return None
        text, finish_reason, prompt_tokens, completion_tokens, seconds, figures, reasoning = row
        return Reply(text, finish_reason, prompt_tokens, completion_tokens, seconds, json.loads(figures), reasoning)

    def put_reply(self, key: str, stage: str, model: str, number: int, reply: Reply) -> None:
        """Keep an answer."""
        counts = (reply.prompt_tokens, reply.completion_tokens, reply.seconds, json.dumps(reply.figures))
        row = (key, stage, model, number, reply.text, reply.finish_reason, *counts, reply.reasoning)
        self._db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep a second run away from the store at `path`: both would ask the same. The lock ends with the process.

    Raises:
        RunError: if another run is at work.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"{path}: another run is at work on this output") from error
        yield
