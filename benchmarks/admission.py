"""Time to plan a step of 256 branches under `slack`: `python benchmarks/admission.py [--record]`. No engine.

The 256 are of one request, of sixteen, of 128, and of one wide one among narrow ones; there is time for few of them to
almost all, so that the planner has to search. What counts is the worst case, each the least of many rounds, as whatever
else the machine does only adds.
"""

from __future__ import annotations

import argparse
import time

from figures import record

from multiverse.serving.admission.policies import LONGEST, Slack
from multiverse.serving.admission.step import Family, Step

SIZES = {"1 x 256": [256], "16 x 16": [16] * 16, "128 x 2": [2] * 128, "1 x 128, 64 x 2": [128] + [2] * 64}
ROUNDS, PLANS = 30, 50
NOW = 1000


def seconds(width: int, read: int) -> float:
    return 0.010 + 0.0005 * width + 1e-7 * read


def step(sizes: list[int], share: float) -> Step:
    """A step beside 32 others, with time for `share` of the branches."""
    held = [[NOW - LONGEST * i // size for i in range(size)] for size in sizes]
    families = [Family(since, 1500 * len(since), float(len(since))) for since in held]
    branches = round(share * 256)
    return Step(NOW, families, 32, 32_000, seconds(32 + branches, 32_000 + 1500 * branches))


def microseconds(policy: Slack, one: Step) -> float:
    """CPU time of one plan."""
    found = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(PLANS):
            policy.plan(one)
        found.append((time.process_time() - start) / PLANS * 1e6)
    return min(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/figures.json")
    options = parser.parse_args()
    policy = Slack()
    for width in range(1, 200):
        policy.step_time.learn(width, 1000 * (width % 7), seconds(width, 1000 * (width % 7)))
    worst = 0.0
    for name, sizes in SIZES.items():
        found = [microseconds(policy, step(sizes, share)) for share in (0.1, 0.3, 0.5, 0.9, 1.1)]
        worst = max(worst, *found)
        print(f"{name:16} {min(found):5.1f} to {max(found):5.1f} us")
    start = time.process_time()
    for number in range(10_000):
        policy.step_time.learn(1 + number % 64, number % 1000, seconds(1 + number % 64, number % 1000))
    print(f"a step is learned in {(time.process_time() - start) * 100:.1f} us")
    if options.record:
        record("admission_planner_us_256", round(worst, 1), "python benchmarks/admission.py --record")


if __name__ == "__main__":
    main()
