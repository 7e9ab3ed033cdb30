"""A real `sglang serve --plugin multiverse` for `sgl.function` programs, at each page size."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from document_oracle import Oracle
from program_requests import POOL, post

from multiverse.harness.server import Server, command, free_port
from multiverse.models import TINY
from multiverse.oracle import load


@pytest.fixture(scope="session", params=[1, 16], ids=["pages of one token", "pages of 16 tokens"])
def page(request: pytest.FixtureRequest) -> int:
    """Tokens of a page."""
    return int(request.param)


@pytest.fixture(scope="session")
def server(page: int) -> Iterator[str]:
    """A server with the embedded model and little memory, whose leak checks are strict."""
    small = ["--context-length", "2000", "--max-total-tokens", str(POOL), "--served-model-name", "tiny"]
    small += ["--page-size", str(page)]
    port = free_port()
    started = command("sglang", str(TINY), port, [*small, "--enable-metrics"])
    environment = {**started.environment, "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "1"}
    os.environ.pop("MULTIVERSE", None)
    with Server(replace(started, environment=environment), port) as running:
        running.wait(600)
        yield running.url
        assert post(running.url, "/generate", {"text": "A", "sampling_params": {"max_new_tokens": 1}})[0] == 200


@pytest.fixture
def flushed(server: str) -> str:
    """The server, which has nothing cached and keeps no states."""
    assert urllib.request.urlopen(f"{server}/flush_cache?timeout=30", data=b"", timeout=60).status == 200
    return server


@pytest.fixture
def backend(flushed: str) -> Any:
    """A backend for a server that has cached nothing."""
    from multiverse_sglang.programs import RuntimeEndpoint

    return RuntimeEndpoint(flushed)


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    return Oracle(*load(str(TINY)))
