"""The input: reasoning chains from JSON lines, Parquet or `datasets`, one at a time.

A record that can't be used becomes a `Problem` and keeps its place, so that nothing is lost silently.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from multiverse.curator.config import Fields, Input
from multiverse.curator.sentences import split
from multiverse.errors import RunError
from multiverse.harness import rows
from multiverse.harness.messages import one_text

_BATCH = 64


@dataclass(frozen=True)
class Chain:
    """One question with its sequential reasoning.

    Attributes:
        position: its place in the input, from 0.
        id: its name in the input, or its position.
        reasoning: the chain; what is restructured.
        answer: the expected answer; empty if the input has none.
        response: what the assistant says after its reasoning; appended unchanged.
    """

    position: int
    id: str
    question: str
    reasoning: str
    answer: str = ""
    response: str = ""

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """The reasoning in sentences; sentence `n` of all artefacts is `sentences[n - 1]`."""
        return tuple(split(self.reasoning))

    @property
    def fingerprint(self) -> str:
        """The same for the same content, wherever it stands in the input."""
        content = asdict(self) | {"position": None}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Problem:
    """A record that is no chain, and why."""

    position: int
    id: str
    message: str


def read_chains(source: Input) -> Iterator[Chain | Problem]:
    """Read the input without ever holding all of it.

    Raises:
        RunError: if it can't be opened.
    """
    for position, record in enumerate(_records(source)):
        if isinstance(record, str):
            yield Problem(position, str(position), record)
        else:
            yield _chain(position, record, source.fields)


def _records(source: Input) -> Iterator[Any]:
    path = Path(source.path)
    if path.suffix in rows.SUFFIXES:
        return _from_file(path)
    if path.suffix == ".parquet":
        return _from_parquet(path)
    return _from_datasets(source)


def _from_file(path: Path) -> Iterator[Any]:
    try:
        for row in rows.read_rows(path, path.name):
            yield f"{row.place} {row.message}" if isinstance(row, rows.Problem) else row.value
    except OSError as error:
        raise RunError(f"input.path {path}: can't be read ({error.strerror})") from error


def _from_parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise RunError(f"input.path {path}: can't be read as Parquet ({error})") from error
    for batch in file.iter_batches(batch_size=_BATCH):
        yield from batch.to_pylist()


def _from_datasets(source: Input) -> Iterator[Any]:
    try:
        import datasets
    except ImportError as error:
        raise RunError(f"input.path {source.path}: needs `datasets`: pip install datasets") from error
    try:
        if Path(source.path).is_dir() and (Path(source.path) / "state.json").exists():
            yield from datasets.load_from_disk(source.path)
        elif (Path(source.path) / "dataset_dict.json").exists():
            yield from datasets.load_from_disk(source.path)[source.split]
        else:
            yield from datasets.load_dataset(source.path, split=source.split, streaming=True)
    except (OSError, ValueError, KeyError, ConnectionError) as error:
        raise RunError(f"input.path {source.path}, split {source.split}: {error}") from error


def _chain(position: int, record: Any, fields: Fields) -> Chain | Problem:
    if not isinstance(record, dict):
        return Problem(position, str(position), f"must be an object, is {type(record).__name__}")
    name = record.get(fields.id)
    id_ = str(position if name is None else name)
    texts = {name: one_text(record.get(name)) for name in fields.model_dump().values()}
    for name in (fields.question, fields.reasoning):
        if isinstance(record.get(name), int | float) or not (texts[name] or "").strip():
            found = ", ".join(map(str, record)) or "nothing"
            return Problem(position, id_, f"field {name!r} must hold text (input.fields); found {found}")
    for name in (fields.answer, fields.response):
        if texts[name] is None and record.get(name) is not None:
            return Problem(position, id_, f"field {name!r} must hold one text or number, is {record[name]!r:.60}")
    question, reasoning, answer, response = (
        (texts[name] or "").strip() for name in (fields.question, fields.reasoning, fields.answer, fields.response)
    )
    return Chain(position, id_, question, reasoning, answer, response)
