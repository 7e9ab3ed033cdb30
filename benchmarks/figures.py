"""The figures that this project promises: benchmarks/results/figures.json, one number each, with how it was got.

    {"name": {"value": 0.18, "date": "2026-11-29", "command": "...", "commit": "fcf36a9", "machine": "..."}}

Benchmarks call `record`; `tools/figures` makes README's table from the file. A figure over several runs, one for each
host and way of scheduling, is a sum of what `keep` has of them: benchmarks/results/mixed.json.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "benchmarks/results/figures.json"
RUNS = ROOT / "benchmarks/results/mixed.json"
VECTORS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
"""Instruction sets on which speed depends most, by their names in /proc/cpuinfo."""


def record(name: str, value: float, command: str) -> None:
    """Write one figure, measured now by `command` at the commit that is checked out."""
    with _open(FIGURES) as figures:
        figures[name] = {"value": value, **_when(command)}


def keep(benchmark: str, run: str, result: Mapping[str, Any], command: str) -> dict[str, dict[str, Any]]:
    """Write what came of one run of a benchmark, in place of what it had before.

    Returns:
        all runs of this benchmark so far, by name.
    """
    with _open(RUNS) as benchmarks:
        runs: dict[str, dict[str, Any]] = benchmarks.setdefault(benchmark, {})
        runs[run] = {**result, **_when(command)}
        return runs


@contextmanager
def _open(file: Path) -> Iterator[dict[str, Any]]:
    """What is in a JSON file, to be changed; written in order at the end, and nobody else's turn meanwhile."""
    lock_file = file.with_suffix(".lock")
    with lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        content = json.loads(file.read_text()) if file.exists() else {}
        yield content
        file.write_text(json.dumps(dict(sorted(content.items())), indent=1) + "\n")
    lock_file.unlink()


def _when(command: str) -> dict[str, str]:
    return {"date": date.today().isoformat(), "command": command, "commit": _commit(), "machine": machine()}


def machine() -> str:
    """Cores, processor and the vector instructions that it has."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    vectors = [name for name in VECTORS if name in said.get("flags", "").split()]
    return f"{os.cpu_count()} cores, {said.get('model name', 'unknown processor')}, {' '.join(vectors) or 'no AVX2'}"


def _commit() -> str:
    """The commit, marked if the tree differs from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
