"""The server that is a program, as fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from program import Program, serve


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[Program, str]]]:
    """Starts a server; gives what it does and its base URL."""
    servers = []

    def begin(**settings: Any) -> tuple[Program, str]:
        program = Program(**settings)
        servers.append(serve(program))
        return program, f"http://127.0.0.1:{servers[-1].server_address[1]}/v1"

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Path]:
    """Writes a configuration for a URL; further settings replace its fields."""

    def write(url: str, name: str = "run", **settings: Any) -> Path:
        endpoint = {"base_url": url, "timeout": 20, "concurrency": 4, "retries": 0}
        config = {"output": name, "model": "tiny", "endpoint": endpoint, "tasks": ["embedded"], "limit": 20}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config | settings))
        return path

    return write
