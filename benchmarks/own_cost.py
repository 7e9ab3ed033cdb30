"""What the plugin itself costs per token on vLLM, in CPU microseconds: `python benchmarks/own_cost.py [CHECKOUT]`.

vLLM's own scheduler and front end around a runner that returns tokens at once (`instant_vllm.py`), three times: without
the plugin, with it and nobody forking, with it and everybody forking. Processes take turns; of each figure the smallest
of all rounds counts, as whatever else the machine does only adds. With a CHECKOUT of another commit of this project its
plugin is measured in the same rounds, and the ratio is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
KINDS = ("absent", "unused", "forking")
Costs = dict[int, tuple[float, float]]
"""By batch size: microseconds per row and per step."""


def measure(tree: Path, kind: str) -> Costs:
    """One process with the plugin of `tree`."""
    command = [sys.executable, str(ROOT / "benchmarks/instant_vllm.py"), kind]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = [json.loads(line[7:]) for line in run.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise SystemExit(run.stderr)
    return {batch: (per_row, per_step) for batch, per_row, per_step in found}


def least(rounds: list[Costs]) -> Costs:
    """The smallest of each figure."""
    return {batch: (min(r[batch][0] for r in rounds), min(r[batch][1] for r in rounds)) for batch in rounds[0]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, nargs="?", help="another commit of this project")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    trees = {"this": ROOT} | ({"other": options.checkout.resolve()} if options.checkout else {})
    wanted = [("this", "absent"), *((tree, kind) for kind in KINDS[1:] for tree in trees)]
    found: dict[tuple[str, str], list[Costs]] = {name: [] for name in wanted}
    for number in range(options.rounds):
        for tree, kind in wanted[number % len(wanted) :] + wanted[: number % len(wanted)]:
            found[tree, kind].append(measure(trees[tree], kind))
    costs = {name: least(rounds) for name, rounds in found.items()}
    absent = costs["this", "absent"]
    for (tree, kind), by_batch in costs.items():
        for batch, (per_row, per_step) in by_batch.items():
            line = f"{tree:5} {kind:8} batch {batch:3}: {per_row:6.1f} us per row, {per_step / 1000:6.2f} ms per step"
            if kind == "unused":
                line += f", the plugin's own {per_row - absent[batch][0]:5.2f} us per plain token"
            if tree == "this" and ("other", kind) in costs:
                line += f", {per_step / costs['other', kind][batch][1]:.3f} of the other's step"
            print(line)


if __name__ == "__main__":
    main()
