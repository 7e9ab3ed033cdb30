"""A copy of an installed host with patches applied, in front of the installed one. The installed one is only read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {"vllm": ".", "sglang": "python"}
"""Where a host's repository has its package; patches are relative to the repository."""
TESTS = {"vllm": "tests", "sglang": "test"}
"""Where it has its tests, which no wheel has."""

LONGEST = 900
"""Seconds that one run may take."""


class PatchError(Exception):
    """A patch that does not apply, or a host that isn't there."""


@dataclass(frozen=True)
class Patch:
    """One line of `series`; `rows` of our hook table are not needed on a host that has it."""

    host: str
    release: str
    name: str
    rows: int

    @property
    def file(self) -> Path:
        return ROOT / "patches" / self.host / f"{self.name}.patch"


def series() -> list[Patch]:
    """All patches, in order."""
    lines = (ROOT / "patches/series").read_text().splitlines()
    cells = [line.split() for line in lines if line and not line.startswith("#")]
    return [Patch(host, release, name, int(rows)) for host, release, name, rows in cells]


class Overlay:
    """A directory laid out as the host's repository: its package, hard-linked, and what patches add or change."""

    def __init__(self, host: str, directory: Path) -> None:
        self.host = host
        self.directory = directory
        self.python = ROOT / ".venvs" / host / "bin/python"
        (site,) = (ROOT / ".venvs" / host).glob("lib/python*/site-packages")
        self.site: Path = site

    def release(self) -> str:
        """The release that is installed, whatever it was built for."""
        found = {dist.metadata["Name"]: dist.version for dist in metadata.distributions(path=[str(self.site)])}
        version = found.get(self.host) or found.get(f"{self.host}-cpu") or "none"
        return version.partition("+")[0]

    def apply(self, patches: Sequence[Patch], only_tests: bool = False) -> None:
        """Apply patches to the copy, with no line of context to spare.

        Raises:
            PatchError: with git's words.
        """
        for patch in patches:
            if patch.release != self.release():
                raise PatchError(f"{patch.name} is for {patch.host} {patch.release}, not for {self.release()}")
            some = [f"--include={TESTS[self.host]}/*"] if only_tests else []
            command = ["git", "apply", "--whitespace=error-all", *some, str(patch.file)]
            environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(self.directory.parent)}
            done = subprocess.run(
                command, cwd=self.directory, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise PatchError(done.stderr.strip())

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the host's Python with the copy, and this checkout, in front of what is installed.

        Raises:
            subprocess.TimeoutExpired: after a quarter of an hour.
        """
        path = f"{self.directory / SOURCES[self.host]}:{ROOT}"
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "SGLANG_USE_CPU_ENGINE": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [str(self.python), *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=LONGEST
        )

    def tests(self) -> subprocess.CompletedProcess[str]:
        """Run the tests that patches added, apart from our own."""
        tests = self.directory / TESTS[self.host]
        apart = ["-c", os.devnull, f"--rootdir={tests}", "-p", "no:cacheprovider"]
        return self.run("-m", "pytest", "-q", *apart, str(tests))


@contextmanager
def overlay(host: str, patches: Sequence[Patch], only_tests: bool = False) -> Iterator[Overlay]:
    """A patched copy that is gone afterwards. `only_tests` leaves the host as it is and adds the tests.

    Raises:
        PatchError: if it can't be made.
    """
    with TemporaryDirectory(prefix=f"{host}-", dir=scratch()) as directory:
        made = Overlay(host, Path(directory))
        target = made.directory / SOURCES[host] / host
        shutil.copytree(made.site / host, target, copy_function=_link)
        made.apply(patches, only_tests)
        yield made


def scratch() -> Path:
    """A directory on the disk of the environments, so that files can be links."""
    path = ROOT / "build"
    path.mkdir(exist_ok=True)
    return path


def _link(source: str, target: str) -> None:
    """A hard link: git and Python write changed files anew. A copy where links can't be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def require_hosts(hosts: set[str]) -> None:
    """Raises PatchError if a host is not installed."""
    for host in hosts:
        if not (ROOT / ".venvs" / host / "bin/python").exists():
            raise PatchError(f"{host} is not installed here: tools/setup {host}-tests")


if __name__ == "__main__":
    sys.exit("used by patches/verify")
