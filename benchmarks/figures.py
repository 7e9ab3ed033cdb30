"""The figures that this project promises: benchmarks/results/figures.json, one number each, with how it was got.

    {"name": {"value": 0.18, "date": "2026-11-29", "command": "...", "commit": "fcf36a9", "machine": "..."}}

Benchmarks call `record`; `tools/figures` makes README's table from the file.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "benchmarks/results/figures.json"
VECTORS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
"""Instruction sets on which speed depends most, by their names in /proc/cpuinfo."""


def record(name: str, value: float, command: str) -> None:
    """Write one figure, measured now by `command` at the commit that is checked out."""
    with FIGURES.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
        figures[name] = {
            "value": value,
            "date": date.today().isoformat(),
            "command": command,
            "commit": _commit(),
            "machine": machine(),
        }
        FIGURES.write_text(json.dumps(dict(sorted(figures.items())), indent=1) + "\n")
    FIGURES.with_suffix(".lock").unlink()


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
