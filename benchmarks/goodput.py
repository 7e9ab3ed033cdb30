"""What goodput promises, out of a run of `multiverse bench --only goodput`: `benchmarks/goodput.py DIR [--record]`.

What counts is the lowest rate at which `eager` serves fewer than 95 % in time. At the lowest rate of all, latency under
`slack` is compared with that under `eager`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from figures import record

from multiverse.evaluation.bench.goodput import ALL, NAME
from multiverse.evaluation.bench.goodput_report import gain
from multiverse.evaluation.bench.points import Point, Race, races
from multiverse.evaluation.bench.run import RESULTS

ENOUGH = 0.95


def attainment(race: Race, policy: str) -> float:
    return float(race.ways[policy].more["kinds"][ALL]["attainment"])


def found(known: list[Race]) -> dict[str, float]:
    """The figures, by name.

    Raises:
        SystemExit: if `eager` serves enough at every rate.
    """
    late = [race for race in known if attainment(race, "eager") < ENOUGH]
    if not late:
        raise SystemExit(f"eager serves {ENOUGH:.0%} in time at every rate: name higher ones")
    return {
        "goodput_slack_to_eager": gain(late[0], "eager"),
        "goodput_slack_to_off": gain(late[0], "off"),
        "slo_attainment_slack": attainment(late[0], "slack"),
        "step_time_error": late[0].ways["slack"].more["step_time_error"],
    }


def main() -> None:
    """Print, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="what `multiverse bench -o` wrote")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/figures.json")
    parser.add_argument("--suffix", default="", help="of the figures' names: `_sglang`; those of vLLM have none")
    options = parser.parse_args()
    data = json.loads((options.run / RESULTS).read_text())
    known = sorted(races([Point(**point) for point in data["points"]], NAME), key=lambda race: race.case["rate"])
    eager, slack = (known[0].ways[policy].more["kinds"][ALL]["latency_s"] for policy in ("eager", "slack"))
    print(f"{known[0].case['rate']:g} requests/s: mean latency under slack {slack / eager:.3f} of that under eager")
    for name, value in found(known).items():
        print(f"{name} {value:.3f}")
        if options.record:
            record(name + options.suffix, round(value, 3), data["command"])


if __name__ == "__main__":
    main()
