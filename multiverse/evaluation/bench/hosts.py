"""The server that is measured: one that runs, or one that is started here, with the plugin or without it."""

from __future__ import annotations

import itertools
import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from multiverse.errors import RunError
from multiverse.evaluation.bench.traffic import Words
from multiverse.harness.server import Command, Server, command, free_port
from multiverse.serving.activation import take_flag
from multiverse.structure.binding import bind, detect

PATIENCE = 600
"""Seconds that a server may take to start."""

_ANY_SHAPE = ("--multiverse-shapes", "accept", "--multiverse-max-depth", "64", "--multiverse-max-branches", "1024")
"""Recorded answers are wider and deeper than what a server allows by default."""


@dataclass(frozen=True)
class Served:
    """A server and its model.

    Attributes:
        url: without `/v1`.
        model: as the server calls it.
        path: where its tokenizer and configuration are.
        arguments: that it was started with; empty if it ran already.
        clock: what time is measured with, in seconds.
    """

    url: str
    model: str
    path: str
    arguments: tuple[str, ...] = ()
    clock: Callable[[], float] = time.perf_counter

    @property
    def dtype(self) -> str | None:
        """What the arguments say about it."""
        found = None
        for name, value in itertools.pairwise(self.arguments):
            found = value if name == "--dtype" else found
        return found


def running(url: str, path: str | None = None) -> Served:
    """A server that runs.

    Raises:
        RunError: if there is no OpenAI API at `url`.
    """
    url = url.rstrip("/").removesuffix("/v1")
    try:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=60) as answer:
            first = json.load(answer)["data"][0]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RunError(f"{url}/v1/models: tells no model ({error}): is a server running there?") from error
    return Served(url, first["id"], path or first.get("root") or first["id"])


@contextmanager
def started(host: str, model: str, more: Sequence[str], plugin: bool = True, cpu: bool = False) -> Iterator[Served]:
    """A server of its own, which takes shapes if it has the plugin.

    Args:
        more: further arguments of the host's server.
        cpu: measure its CPU time.

    Raises:
        UnsupportedHostError: if it doesn't start, with the end of its log.
    """
    port = free_port()
    start = command(host, model, port, (*_ANY_SHAPE, *more) if plugin else more)
    if not plugin:
        arguments = list(start.arguments)
        take_flag(arguments)
        start = Command(tuple(arguments), start.environment)
    with Server(start, port) as server:
        server.wait(PATIENCE)
        found = running(server.url, model)
        clock = server.cpu_seconds if cpu else time.perf_counter
        yield Served(found.url, found.model, model, start.arguments, clock)


def words_of(path: str) -> Words:
    """The vocabulary of a model.

    Raises:
        RunError: if its tokenizer can't be loaded.
        BindingError: if it knows the tags of no dialect.
    """
    try:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(path)
    except (ImportError, OSError, ValueError) as error:
        raise RunError(f"the tokenizer of {path} can't be loaded ({error}); name its directory with --model") from error
    return Words.of(tokenizer, bind(detect(tokenizer), tokenizer))
