"""Questions in a file, one a line."""

from __future__ import annotations

from pathlib import Path

from multiverse.errors import RunError


def read_questions(file: str) -> list[str]:
    """The lines of a file that are not empty.

    Raises:
        RunError: if it can't be read, or has none.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise RunError(f"{file} can't be read: {error}") from error
    if found := [line for line in lines if line.strip()]:
        return found
    raise RunError(f"{file} holds no question")
