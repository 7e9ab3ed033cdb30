"""The teacher over HTTP, and configurations that point at it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before `datasets` is imported
sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "curator"))

from chains import chain
from curating import Configure, Serve
from teacher import Teacher, serve


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
