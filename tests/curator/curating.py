"""What the Curator's tests share: their types, the command as a process of its own, the records it writes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from teacher import Teacher

ROOT = Path(__file__).parents[2]
Serve = Callable[..., tuple[Teacher, str]]
"""Starts a teacher; gives it and its base URL."""
Configure = Callable[..., Path]
LEAN = re.compile(r"(?:Similarly|As before|As in the previous case), (\w)")
"""How a sentence of a chain leans on another path, and the letter that follows."""


def command(*arguments: object) -> list[str]:
    """The command line of `multiverse curate`."""
    return [sys.executable, "-m", "multiverse", "curate", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `multiverse curate` as a user does."""
    environment = os.environ | {"COLUMNS": "160", "OPENAI_API_KEY": ""}
    return subprocess.run(command(*arguments), cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
