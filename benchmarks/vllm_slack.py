"""What watching promises costs where nobody forks: CPU time of a step of 64 plain rows in vLLM's scheduler.

    PYTHONPATH=tests/conformance .venvs/vllm/bin/python benchmarks/vllm_slack.py

The scheduler alone, as tests/conformance/vllm_scheduler.py has it: no engine, and no model. Both ways take turns, and
the least of each counts.
"""

from __future__ import annotations

import time

from vllm_scheduler import Script, ScriptedScheduler

ROWS, STEPS, REPEATS, TURNS = 64, 50, 6, 5


def microseconds(**options: str) -> float:
    """Of a step."""
    host = ScriptedScheduler(rows=4 * ROWS, **options)
    for _ in range(ROWS):
        host.add(Script(rest=STEPS * (REPEATS + 2)))
    for _ in range(STEPS):
        host.step()
    found = []
    for _ in range(REPEATS):
        begun = time.process_time()
        for _ in range(STEPS):
            host.step()
        found.append((time.process_time() - begun) / STEPS)
    return 1e6 * min(found)


def main() -> None:
    """Measure and print."""
    ways: dict[str, list[float]] = {"eager": [], "slack": []}
    for _ in range(TURNS):
        ways["eager"].append(microseconds())
        ways["slack"].append(microseconds(admission="slack", tpot_slo_ms="50"))
    eager, slack = min(ways["eager"]), min(ways["slack"])
    print(f"eager {eager:.0f} us, slack {slack:.0f} us: {slack - eager:.0f} us more per step")


if __name__ == "__main__":
    main()
