"""A host's own server with the plugin, as a process of its own: how to start it on this machine, and when it is ready.

Knows command lines and environment variables, nothing of what is inside. The host has to be installed beside this
package, in the environment of the running interpreter.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from multiverse.errors import UnsupportedHostError

HOSTS = ("vllm", "sglang")
LAST_LINES = 30
"""Lines of the log that are shown when a server does not start."""

_SGLANG_ON_CPU = ("--device", "cpu", "--attention-backend", "multiverse", "--dtype", "float32")
_SGLANG_SMALL = ("--context-length", "1025", "--max-total-tokens", "16384", "--max-running-requests", "64")
_SGLANG_SAMPLES = {"SGLANG_SANITIZE_NAN_LOGITS": "1"}
"""SGLang 0.5.23's sampler, with or without the plugin, ends the server over what is one request's error with this."""
_VLLM_ON_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",
}


@dataclass(frozen=True)
class Command:
    """What starts a server: arguments, and environment variables on top of those there are."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def full_environment(self) -> dict[str, str]:
        """The environment to start it in: what the user has set wins."""
        return {**self.environment, **os.environ}


def installed(host: str) -> bool:
    """Whether `host` can be imported here."""
    return find_spec(host) is not None


def command(host: str, model: str, port: int, extra: Sequence[str] = (), address: str = "127.0.0.1") -> Command:
    """How to serve `model` with `host` and the plugin on this machine.

    Args:
        extra: further arguments of the host's server; they come last, so they win.

    Raises:
        UnsupportedHostError: if the host is not known or not installed here.
    """
    if host not in HOSTS:
        raise UnsupportedHostError(f"unknown host {host!r}; there are {', '.join(HOSTS)}")
    if not installed(host):
        raise UnsupportedHostError(f"{host} is not installed in {sys.prefix}: run tools/setup {host}")
    return (_vllm if host == "vllm" else _sglang)(model, ["--host", address, "--port", str(port)], extra)


def _vllm(model: str, where: Sequence[str], extra: Sequence[str]) -> Command:
    arguments = [_executable("vllm"), "serve", model, "--plugin", "multiverse", *where]
    if not _vllm_is_for_cpus():
        return Command((*arguments, *extra))
    arguments += ["--dtype", "float32", "--enforce-eager", "--block-size", "32", "--max-model-len", "1024"]
    return Command((*arguments, *extra), _VLLM_ON_CPU)


def _sglang(model: str, where: Sequence[str], extra: Sequence[str]) -> Command:
    arguments = [_executable("sglang"), "serve", "--model-path", model, "--plugin", "multiverse", *where]
    arguments += ["--page-size", "1", "--enable-metrics"]
    if not _torch_is_for_cpus():
        return Command((*arguments, *extra), _SGLANG_SAMPLES)
    arguments += [*_SGLANG_ON_CPU, *_SGLANG_SMALL, "--skip-server-warmup", "--sleep-on-idle"]
    return Command((*arguments, *extra), {"OMP_NUM_THREADS": "1", **_SGLANG_SAMPLES})


def _executable(name: str) -> str:
    """The command of that name in the environment of the running interpreter."""
    return str(Path(sys.executable).with_name(name))


def _torch_is_for_cpus() -> bool:
    return metadata.version("torch").endswith("+cpu")


def _vllm_is_for_cpus() -> bool:
    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        return False
    return True


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    """In the child: be asked to end when the parent ends, even if it is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class Server:
    """A server in the background. Use it in a `with` statement: it is stopped at the end, whatever happens.

    Its log is a file, which is removed if all went well and kept otherwise.

    Attributes:
        url: where it answers.
        log: path of its log.
    """

    def __init__(self, command: Command, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        handle, name = tempfile.mkstemp(prefix="multiverse-server-", suffix=".log")
        self.log = Path(name)
        with os.fdopen(handle, "w") as output:
            self._process = subprocess.Popen(
                command.arguments,
                env=command.full_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # an interrupt from the keyboard is ours to handle
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 (one system call)
            )

    def wait(self, timeout: float = 300, waiting: Callable[[float], None] | None = None) -> None:
        """Return when it answers.

        Args:
            timeout: seconds it may take.
            waiting: called about once a second with the seconds waited so far.

        Raises:
            UnsupportedHostError: if it ends or takes too long, with the last lines of its log.
        """
        start = time.monotonic()
        while (waited := time.monotonic() - start) < timeout:
            if (status := self._process.poll()) is not None:
                raise UnsupportedHostError(f"the server ended with status {status}:\n{self.last_lines()}")
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except OSError:
                if waiting is not None:
                    waiting(waited)
                time.sleep(1)
        raise UnsupportedHostError(f"the server did not answer within {timeout:.0f} s:\n{self.last_lines()}")

    def last_lines(self, number: int = LAST_LINES) -> str:
        """The end of its log, and where all of it is."""
        lines = self.log.read_text(errors="replace").splitlines()[-number:]
        return "\n".join([*(f"  {line}" for line in lines), f"the whole log is {self.log}"])

    def cpu_seconds(self) -> float:
        """CPU time that its processes have taken so far. Linux only."""
        return sum(int(fields[11]) + int(fields[12]) for fields in self._processes()) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Memory that its processes have in use now. Linux only."""
        return sum(int(fields[21]) for fields in self._processes()) * os.sysconf("SC_PAGE_SIZE")

    def _processes(self) -> Iterator[list[str]]:
        """/proc's stat of each of its processes, behind the name."""
        for file in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has just ended
                fields = file.read_text().rsplit(")", 1)[1].split()
                if int(fields[3]) == self._process.pid:  # it leads a session of its own
                    yield fields

    def stop(self, patience: float = 20) -> None:
        """End it and its children: asked first, twice, since it may be starting up; then not asked."""
        for _ in range(2):
            if self._process.poll() is None:
                self._process.terminate()
                try:
                    self._process.wait(patience / 2)
                except subprocess.TimeoutExpired:
                    continue
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # it leads a group of its own: nobody else is in it
        self._process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None or kind is KeyboardInterrupt:
            self.log.unlink()
