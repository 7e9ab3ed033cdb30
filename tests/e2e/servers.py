"""The servers of a test session: whoever asks for the same arguments gets the same one."""

from __future__ import annotations

import os
from contextlib import ExitStack
from types import TracebackType

from multiverse.harness.server import Server, command, free_port
from multiverse.models import TINY

FEW_BLOCKS = ("--num-gpu-blocks-override", "512")
"""Memory for 16,384 tokens, as SGLang's server on CPUs has; else vLLM fills a whole GB with zeros."""


class Servers:
    """Servers of one host with the embedded model, which end together.

    At the end each must still be there; if not, the last lines of its log are told.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self._running: dict[tuple[str, ...], Server] = {}
        self._stack = ExitStack()
        os.environ.pop("MULTIVERSE", None)
        os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # an operator's controls

    def __call__(self, *arguments: str, model: str = str(TINY)) -> str:
        """The base URL of one that was started with further `arguments`."""
        asked = (model, *arguments)
        if asked not in self._running:
            port = free_port()
            common = ["--served-model-name", "tiny", *(FEW_BLOCKS if self.host == "vllm" else ())]
            started = command(self.host, model, port, [*common, *arguments])
            server = self._stack.enter_context(Server(started, port))
            server.wait(600)
            self._running[asked] = server
        return self._running[asked].url

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            for server in self._running.values():
                server.wait(60)
