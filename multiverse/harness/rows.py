"""Rows of a file: JSON lines or one JSON value. Every command that reads data or answers reads it with this.

Lines end with a newline and nothing else: a text may hold U+2028, which `str.splitlines` takes for an end.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIXES = (".jsonl", ".json")
_MARK = b"\xef\xbb\xbf"
"""The byte order mark that some editors put before the first character."""


@dataclass(frozen=True, slots=True)
class Row:
    """One value and where it stands: `file:line`, `file[number]` in a list, or `file`."""

    place: str
    value: Any


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be read."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


def read_rows(path: str | Path, name: str | None = None) -> Iterator[Row | Problem]:
    """Read the rows of a `.jsonl` file, one at a time, or of a `.json` file: the items of its list, or its one value.

    A `.json` file that is JSON lines in truth is read as such. Empty lines are no rows.

    Args:
        path: the file.
        name: what places call it; `path` if not given.

    Raises:
        OSError: if it can't be read.
    """
    name = str(path) if name is None else name
    if Path(path).suffix.lower() == ".json":
        yield from rows_of_json(Path(path).read_bytes(), name)
        return
    with Path(path).open("rb") as file:
        yield from rows_of_lines(file, name)


def rows_of_lines(lines: Iterable[bytes], name: str) -> Iterator[Row | Problem]:
    """The rows of JSON lines."""
    for number, line in enumerate(lines, 1):
        content = line.removeprefix(_MARK) if number == 1 else line
        if content.strip():
            yield _row(content, f"{name}:{number}")


def rows_of_json(data: bytes, name: str) -> Iterator[Row | Problem]:
    """The rows of one JSON value."""
    row = _row(data.removeprefix(_MARK), name)
    if isinstance(row, Problem) and looks_like_lines(data):
        yield from rows_of_lines(io.BytesIO(data), name)
    elif isinstance(row, Row) and isinstance(row.value, list):
        yield from (Row(f"{name}[{number}]", value) for number, value in enumerate(row.value, 1))
    else:
        yield row


def looks_like_lines(data: bytes) -> bool:
    """Whether the first line is a JSON object by itself, and not the only one."""
    first, _, rest = data.removeprefix(_MARK).strip().partition(b"\n")
    row = _row(first, "")
    return bool(rest) and isinstance(row, Row) and isinstance(row.value, dict)


def _row(data: bytes, place: str) -> Row | Problem:
    try:
        return Row(place, json.loads(data.decode()))
    except UnicodeDecodeError as error:
        return Problem(place, f"is not UTF-8 (byte {error.start})")
    except ValueError as error:
        return Problem(place, f"is not JSON ({error})")
    except RecursionError:
        return Problem(place, "is nested too deeply")
