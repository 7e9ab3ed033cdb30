"""The teacher over HTTP, configurations that point at it, and the command as a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before `datasets` is imported
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples" / "curator"))

from chains import chain  # noqa: E402
from teacher import Teacher, serve  # noqa: E402

Serve = Callable[..., tuple[Teacher, str]]
Configure = Callable[..., Path]
LEAN = re.compile(r"(?:Similarly|As before|As in the previous case), (\w)")
"""How a sentence of a chain leans on another path, and the letter that follows."""


@pytest.fixture
def teach() -> Iterator[Serve]:
    """Starts a teacher; gives it and its base URL."""
    servers = []

    def start(**settings: Any) -> tuple[Teacher, str]:
        teacher = Teacher(**settings)
        servers.append(serve(teacher))
        return teacher, f"http://127.0.0.1:{servers[-1].server_address[1]}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Writes a configuration for some chains and a URL; further settings replace its sections' fields."""

    def write(url: str, records: int | list[Any], name: str = "run", **settings: Any) -> Path:
        data = [chain(number) for number in range(records)] if isinstance(records, int) else records
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in data))
        config: dict[str, Any] = {
            "input": {"path": f"{name}.jsonl"},
            "output": name,
            "model": "teacher",
            "endpoint": {"base_url": url, "concurrency": 8, "timeout": 20},
        }
        for key, value in settings.items():
            config[key] = {**config[key], **value} if isinstance(config.get(key), dict) else value
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write


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
