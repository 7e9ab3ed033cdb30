"""How long the code's files and functions are, and how often the adapters give up on a type: `--record` writes figures.

benchmarks/sizes.py [--record]
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

from figures import ROOT, record

ADAPTERS = ("multiverse_vllm", "multiverse_sglang")
PACKAGES = ("multiverse", *ADAPTERS)


def files(*packages: str) -> Iterator[Path]:
    """The source files of `packages`."""
    for package in packages:
        yield from sorted((ROOT / package).rglob("*.py"))


def lines(file: Path) -> int:
    """Its lines, empty ones included."""
    return len(file.read_text().splitlines())


def functions(file: Path) -> Iterator[tuple[int, str]]:
    """Lines and place of each function, from `def` to its end."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            place = f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
            yield (node.end_lineno or node.lineno) - node.lineno + 1, place


def figures() -> dict[str, float]:
    """What is recorded, by its name in figures.json."""
    adapters = list(files(*ADAPTERS))
    long = sum(map(lines, adapters))
    anys = sum(len(re.findall(r"\bAny\b", file.read_text())) for file in adapters)
    return {
        "adapter_lines": long,
        "longest_file": max(map(lines, files(*PACKAGES))),
        "longest_function": max(length for file in files(*PACKAGES) for length, _ in functions(file)),
        "any_per_100_lines_adapters": round(100 * anys / long, 2),
    }


def main() -> None:
    """Print, and record on demand."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true")
    recording = parser.parse_args().record
    for name, value in figures().items():
        print(f"{name}: {value:g}")
        if recording:
            record(name, value, "benchmarks/sizes.py --record")


if __name__ == "__main__":
    main()
