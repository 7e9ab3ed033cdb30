"""The servers of a test session: whoever asks for the same arguments in a module gets the same one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType

from multiverse.harness.server import Server, command, free_port
from multiverse.models import TINY

FEW_BLOCKS = ("--num-gpu-blocks-override", "512")
"""Memory for 16,384 tokens, as SGLang's server on CPUs has; else vLLM fills a whole GB with zeros."""
USUAL = (str(TINY),)
"""The one without further arguments, which all modules ask."""


class Servers:
    """Servers of one host with the embedded model. The usual one ends with the session, others with their module.

    At its end each must still be there; if not, the last lines of its log are told.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self._running: dict[tuple[str, ...], Server] = {}
        os.environ.pop("MULTIVERSE", None)
        os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # an operator's controls

    def __call__(self, *arguments: str, model: str = str(TINY)) -> str:
        """The base URL of one that was started with further `arguments`."""
        asked = (model, *arguments)
        if asked not in self._running:
            port = free_port()
            common = ["--served-model-name", "tiny", *(FEW_BLOCKS if self.host == "vllm" else ())]
            started = command(self.host, model, port, [*common, *arguments])
            self._running[asked] = Server(started, port)
            self._running[asked].wait(600)
        return self._running[asked].url

    def end_others(self) -> None:
        """End all but the usual one: each takes 1.5 GB."""
        self._end(self._running.keys() - {USUAL})

    def _end(self, asked: Iterable[tuple[str, ...]]) -> None:
        with ExitStack() as stack:
            ending = [stack.enter_context(self._running.pop(each)) for each in asked]
            for server in ending:
                server.wait(60)

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(list(self._running))
