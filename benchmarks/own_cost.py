"""What the plugin itself costs per token of CPU time: `python benchmarks/own_cost.py --host HOST [CHECKOUT]`.

The host's own code around a model runner that returns tokens at once (`instant_vllm.py`: scheduler and front end;
`instant_sglang.py`: scheduler and streamer), three times: without the plugin, with it and nobody forking, with it and
everybody forking. Processes take turns; of each figure the smallest of all rounds counts, as whatever else the machine
does only adds. With a CHECKOUT of another commit of this project its plugin is measured in the same rounds, and the
ratio is printed. `--instructions` counts machine instructions instead, by callgrind: slow, but each number is then
the same on a busy machine, so that one round shows a per cent.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from figures import record
from meter import under_callgrind

ROOT = Path(__file__).parents[1]
KINDS = ("absent", "unused", "forking")
Costs = dict[int, tuple[float, float]]
"""By batch size: microseconds, or instructions, per row and per step."""
LARGE = (64, 256)
"""The batch sizes of the figures that are promised; the larger figure counts."""
SHARES = ROOT / "benchmarks/results/own_cost.json"
"""By host, kind of traffic and batch size: instructions per row, in rows without the plugin."""
MOST_GROWTH = 1.03


def measure(host: str, tree: Path, kind: str, instructions: bool) -> Costs:
    """One process with the plugin of `tree`."""
    command, more = [sys.executable, str(ROOT / f"benchmarks/instant_{host}.py"), kind], dict[str, str]()
    if instructions:
        command, more = under_callgrind(command)
    environment = {**os.environ, **more, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = [json.loads(line[7:]) for line in run.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise SystemExit(run.stderr)
    return {batch: (per_row, per_step) for batch, per_row, per_step in found}


def least(rounds: list[Costs]) -> Costs:
    """The smallest of each figure."""
    return {batch: (min(r[batch][0] for r in rounds), min(r[batch][1] for r in rounds)) for batch in rounds[0]}


def measure_all(host: str, trees: dict[str, Path], rounds: int, instructions: bool) -> dict[tuple[str, str], Costs]:
    """By name of a tree and kind of traffic; `absent` once."""
    wanted = [("this", "absent"), *((tree, kind) for kind in KINDS[1:] for tree in trees)]
    found: dict[tuple[str, str], list[Costs]] = {name: [] for name in wanted}
    for number in range(rounds):
        turn = number % len(wanted)
        for tree, kind in wanted[turn:] + wanted[:turn]:
            found[tree, kind].append(measure(host, trees[tree], kind, instructions))
    return {name: least(costs) for name, costs in found.items()}


def show(costs: dict[tuple[str, str], Costs], unit: str) -> None:
    """Print a line for each tree, kind of traffic and batch size."""
    absent = costs["this", "absent"]
    for (tree, kind), by_batch in costs.items():
        for batch, (per_row, per_step) in by_batch.items():
            line = f"{tree:5} {kind:8} batch {batch:3}: {per_row:8.1f} {unit} per row, {per_step:9.0f} per step"
            if kind == "unused":
                line += f", the plugin's own {per_row - absent[batch][0]:5.2f} {unit} per plain token"
                line += f", {per_step / absent[batch][1]:.3f} of a step without it"
            if tree == "this" and ("other", kind) in costs:
                line += f", {per_step / costs['other', kind][batch][1]:.3f} of the other's step"
            print(line)


def shares(costs: dict[tuple[str, str], Costs]) -> dict[str, dict[str, float]]:
    """By kind of traffic and batch size, what a row costs with this plugin, in rows without it."""
    absent = costs["this", "absent"]
    return {
        kind: {str(batch): round(per_row / absent[batch][0], 4) for batch, (per_row, _) in costs["this", kind].items()}
        for kind in KINDS[1:]
    }


def keep(host: str, costs: dict[tuple[str, str], Costs], instructions: bool) -> None:
    """Write the figures to `figures.json`, the ratios if there is another checkout; of instructions what to `check`."""
    command, absent = f"make bench-own-cost HOST={host} OTHER=400bb11", costs["this", "absent"]
    own = {
        tree: {b: costs[tree, "unused"][b][0] - absent[b][0] for b in LARGE} for tree, kind in costs if kind != "absent"
    }
    if instructions:
        command += " COUNT=instructions"
        known = json.loads(SHARES.read_text()) if SHARES.exists() else {}
        SHARES.write_text(json.dumps({**known, host: shares(costs)}, indent=1) + "\n")
    else:
        record(f"own_us_per_plain_token_{host}", round(max(own["this"].values()), 2), command)
    if "other" in own:
        ratio = max(own["this"][batch] / own["other"][batch] for batch in LARGE)
        record(f"own_plain_ratio_to_400bb11_{host}", round(ratio, 3), command)
        this, other = costs["this", "forking"], costs["other", "forking"]
        record(f"forking_ratio_to_400bb11_{host}", round(max(this[b][0] / other[b][0] for b in this), 3), command)


def check(host: str, costs: dict[tuple[str, str], Costs]) -> list[str]:
    """What costs more than when it was recorded.

    Raises:
        SystemExit: nothing was.
    """
    known = json.loads(SHARES.read_text()).get(host)
    if known is None:
        sys.exit(f"own_cost: nothing is recorded for {host}: first --instructions --record")
    found = shares(costs)
    return [
        f"{kind} traffic at batch {batch}: {share:.3f} rows without the plugin; recorded: {known[kind][batch]:.3f}"
        for kind, batches in found.items()
        for batch, share in batches.items()
        if share > known[kind][batch] * MOST_GROWTH
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, nargs="?", help="another commit of this project; 400bb11 with --record")
    parser.add_argument("--host", choices=("vllm", "sglang"), default="vllm")
    parser.add_argument("--rounds", type=int, help="default: 3, or 1 of instructions")
    parser.add_argument("--instructions", action="store_true", help="count instructions, by callgrind, and no time")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results")
    parser.add_argument("--check", action="store_true", help="with --instructions: fail if it grew by 3 %% since")
    options = parser.parse_args()
    if options.check and not options.instructions:
        parser.error("--check compares instructions: add --instructions")
    trees = {"this": ROOT} | ({"other": options.checkout.resolve()} if options.checkout else {})
    rounds = options.rounds or (1 if options.instructions else 3)
    costs = measure_all(options.host, trees, rounds, options.instructions)
    show(costs, "instructions" if options.instructions else "us")
    if options.record:
        keep(options.host, costs, options.instructions)
    if options.check and (grown := check(options.host, costs)):
        sys.exit("own_cost: grown since it was recorded:\n" + "\n".join(grown))


if __name__ == "__main__":
    main()
