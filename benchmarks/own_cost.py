"""What the plugin itself costs per token, in CPU microseconds: `python benchmarks/own_cost.py --host HOST [CHECKOUT]`.

The host's own code around a model runner that returns tokens at once (`instant_vllm.py`: scheduler and front end;
`instant_sglang.py`: scheduler and streamer), three times: without the plugin, with it and nobody forking, with it and
everybody forking. Processes take turns; of each figure the smallest of all rounds counts, as whatever else the machine
does only adds. With a CHECKOUT of another commit of this project its plugin is measured in the same rounds, and the
ratio is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from figures import record

ROOT = Path(__file__).parents[1]
KINDS = ("absent", "unused", "forking")
Costs = dict[int, tuple[float, float]]
"""By batch size: microseconds per row and per step."""
LARGE = (64, 256)
"""The batch sizes of the figures that are promised; the larger figure counts."""


def measure(host: str, tree: Path, kind: str) -> Costs:
    """One process with the plugin of `tree`."""
    command = [sys.executable, str(ROOT / f"benchmarks/instant_{host}.py"), kind]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = [json.loads(line[7:]) for line in run.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise SystemExit(run.stderr)
    return {batch: (per_row, per_step) for batch, per_row, per_step in found}


def least(rounds: list[Costs]) -> Costs:
    """The smallest of each figure."""
    return {batch: (min(r[batch][0] for r in rounds), min(r[batch][1] for r in rounds)) for batch in rounds[0]}


def measure_all(host: str, trees: dict[str, Path], rounds: int) -> dict[tuple[str, str], Costs]:
    """By name of a tree and kind of traffic; `absent` once."""
    wanted = [("this", "absent"), *((tree, kind) for kind in KINDS[1:] for tree in trees)]
    found: dict[tuple[str, str], list[Costs]] = {name: [] for name in wanted}
    for number in range(rounds):
        turn = number % len(wanted)
        for tree, kind in wanted[turn:] + wanted[:turn]:
            found[tree, kind].append(measure(host, trees[tree], kind))
    return {name: least(costs) for name, costs in found.items()}


def show(costs: dict[tuple[str, str], Costs]) -> None:
    """Print a line for each tree, kind of traffic and batch size."""
    absent = costs["this", "absent"]
    for (tree, kind), by_batch in costs.items():
        for batch, (per_row, per_step) in by_batch.items():
            line = f"{tree:5} {kind:8} batch {batch:3}: {per_row:6.1f} us per row, {per_step / 1000:6.2f} ms per step"
            if kind == "unused":
                line += f", the plugin's own {per_row - absent[batch][0]:5.2f} us per plain token"
                line += f", {per_step / absent[batch][1]:.3f} of a step without it"
            if tree == "this" and ("other", kind) in costs:
                line += f", {per_step / costs['other', kind][batch][1]:.3f} of the other's step"
            print(line)


def keep(host: str, costs: dict[tuple[str, str], Costs], command: str) -> None:
    """Write the figures to `figures.json`; the ratios if there is another checkout."""
    absent = costs["this", "absent"]
    own = {
        tree: {b: costs[tree, "unused"][b][0] - absent[b][0] for b in LARGE} for tree, kind in costs if kind != "absent"
    }
    record(f"own_us_per_plain_token_{host}", round(max(own["this"].values()), 2), command)
    if "other" in own:
        ratio = max(own["this"][batch] / own["other"][batch] for batch in LARGE)
        record(f"own_plain_ratio_to_400bb11_{host}", round(ratio, 3), command)
        this, other = costs["this", "forking"], costs["other", "forking"]
        record(f"forking_ratio_to_400bb11_{host}", round(max(this[b][0] / other[b][0] for b in this), 3), command)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, nargs="?", help="another commit of this project; 400bb11 with --record")
    parser.add_argument("--host", choices=("vllm", "sglang"), default="vllm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/figures.json")
    options = parser.parse_args()
    trees = {"this": ROOT} | ({"other": options.checkout.resolve()} if options.checkout else {})
    costs = measure_all(options.host, trees, options.rounds)
    show(costs)
    if options.record:
        keep(options.host, costs, f"make bench-own-cost HOST={options.host} OTHER=400bb11")


if __name__ == "__main__":
    main()
