"""1 M tokens through the controller, here and at another commit, in turns: is it slower by now?

    benchmarks/controller_ratio.py 400bb11 [--record]

Each turn is a process of its own, and counts its CPU seconds; the ratio is that of the two medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import ROOT, record

TURNS = 25
CODE = """
import time, core
core.decode(20_000, 6, 120)
start = time.process_time()
core.decode(1_000_000, 6, 120)
print(time.process_time() - start)
"""


def seconds(tree: Path) -> float:
    """CPU seconds of one turn with the code below `tree`."""
    environment = {**os.environ, "PYTHONPATH": f"{tree}:{tree / 'benchmarks'}", "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-c", CODE]
    return float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)


def main() -> None:
    """Measure in turns, print, and record on demand."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit")
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", chosen.commit], cwd=ROOT, stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        turns = [(seconds(Path(folder)), seconds(ROOT)) for _ in range(TURNS)]
    before, now = (statistics.median(column) for column in zip(*turns, strict=True))
    ratio = now / before
    in_turn = statistics.median(new / old for old, new in turns)
    print(f"{before:.3f} s at {chosen.commit}, {now:.3f} s here: {ratio:.3f}, turn by turn {in_turn:.3f}")
    if chosen.record:
        record("controller_ratio", round(ratio, 3), f"benchmarks/controller_ratio.py {chosen.commit} --record")


if __name__ == "__main__":
    main()
