"""Wheels for a machine without a network: fetched where there is one, installed where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOSTS = {"core": "dev,oracle", "vllm": "dev,bench,vllm", "sglang": "dev,bench,sglang"}
"""An environment for each, and the extras that it has; releases are those of pyproject.toml."""


class WheelError(Exception):
    """What pip was asked to do and didn't."""


def carry(folder: Path, hosts: list[str]) -> None:
    """Fetch what `hosts` need, for this Python and machine: gigabytes, with CUDA's libraries."""
    for host in hosts:
        there = folder / host
        there.mkdir(parents=True, exist_ok=True)
        pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(there), str(ROOT))
        (ours,) = there.glob("multiverse_engine-*.whl")
        pip(sys.executable, "download", "--dest", str(there), f"{ours}[{HOSTS[host]}]")
        print(f"{there}: {sum(file.stat().st_size for file in there.iterdir()) / 1e6:.0f} MB", flush=True)


def install(folder: Path, hosts: list[str]) -> list[str]:
    """An environment for each of `hosts` whose wheels are there, from nothing else; returns these hosts."""
    made = []
    for host in hosts:
        there = (folder / host).resolve()
        if not there.is_dir():
            print(f"{there} is not there: {host} is left out", flush=True)
            continue
        python = place(host)
        if not python.exists():
            run([sys.executable, "-m", "venv", str(python.parents[1])])
        (ours,) = there.glob("multiverse_engine-*.whl")
        pip(str(python), "install", "--no-index", "--find-links", str(there), f"{ours}[{HOSTS[host]}]")
        made.append(host)
    return made


def place(host: str) -> Path:
    """The Python of an environment that was made here."""
    return ROOT / f".venvs/gpu-{host}/bin/python"


def environments(hosts: list[str]) -> dict[str, str]:
    """The Pythons that are there: made from what was carried, else by `tools/setup`, which has no CUDA."""
    found = {}
    for host in ("kernels", *hosts):
        for python in (place(host), ROOT / f".venvs/{host}/bin/python"):
            if python.exists():
                found.setdefault(host, str(python))
    return found


def pip(python: str, *arguments: str) -> None:
    run([python, "-m", "pip", "--disable-pip-version-check", *arguments])


def run(command: list[str]) -> None:
    """Raises WheelError with the end of what it said, if it fails."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = "\n".join((ended.stdout + ended.stderr).splitlines()[-5:])
        raise WheelError(f"{' '.join(command)}\n{last}")
