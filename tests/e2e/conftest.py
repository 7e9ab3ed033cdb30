"""A real `vllm serve --plugin multiverse`, or `sglang serve`, with the embedded model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random

import pytest
import torch
from openai import OpenAI
from servers import Servers

from multiverse.harness.server import HOSTS, installed
from multiverse.models.task import Problem, generate

torch.set_num_threads(1)  # the oracle beside a busy server: more threads only wait for each other


@pytest.fixture(scope="session")
def host() -> str:
    """The host that is installed here."""
    return next(host for host in HOSTS if installed(host))


@pytest.fixture(scope="session")
def servers(host: str) -> Iterator[Servers]:
    """Starts a server with further arguments, or gives the one that has them."""
    with Servers(host) as servers:
        yield servers


@pytest.fixture(scope="module", autouse=True)
def servers_of_a_module(servers: Servers) -> Iterator[None]:
    """Ends them with it."""
    yield
    servers.end_others()


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> str:
    """The base URL of a server with the embedded model; of your own, if MULTIVERSE_TEST_SERVER names one."""
    return os.environ.get("MULTIVERSE_TEST_SERVER") or str(request.getfixturevalue("servers")())


@pytest.fixture(scope="session")
def client(server: str) -> Iterator[OpenAI]:
    """An OpenAI client, but for connections: the server may close an idle one as it is used again."""
    headers = {"Connection": "close"}
    with OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0, timeout=120, default_headers=headers) as client:
        yield client


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    rng = Random(21)
    kinds = ("single", "flat", "nested", "chain") * 4
    return [generate(rng, kind, held_out=True) for kind in kinds]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def nested(problems: list[Problem]) -> Problem:
    return problems[2]
