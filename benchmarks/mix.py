"""Any mix of clients: requests drawn from all documented fields of both APIs, and an operator who pauses, resets and
loads weights, while control questions have to be answered as on a quiet server. `make mix` runs it on both hosts.

One server for each way of scheduling, with too little memory for all that is asked. If it does not hold, the round is
tried again on fresh servers with ever fewer requests, and what is left is written as a program that repeats it. Each
way is kept in benchmarks/results/mixed.json as soon as it is through, and figures.json has the sums `mix_*`: what was
broken off goes on with `--mode`. Exits with 1 if something must not be.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from figures import keep, record

from multiverse.errors import RunError
from multiverse.harness.server import Server, command, free_port, installed
from multiverse.models import TINY
from multiverse.models.task import stream
from multiverse.stress.report import Report, Round, Settings
from multiverse.stress.run import stress
from multiverse.stress.script import script
from multiverse.stress.shrink import shrink
from multiverse.structure.dialects import registry

CONFORMANCE = Path(__file__).parents[1] / "tests/conformance"
BUILD = Path("build")
SCARCE = {
    "vllm": ("--num-gpu-blocks-override", "110", "--max-logprobs", "-1", "--scheduling-policy", "priority"),
    "sglang": ("--max-total-tokens", "3520", "--enable-priority-scheduling"),
}
"""KV for a few requests of 32, and priorities."""
SLACK = ("--multiverse-admission", "slack", "--multiverse-tpot-slo-ms", "100")
"""Branches are held where time is short, and requests name what they are to be served in."""
DRAFTS = (
    '{"method": "custom_class", "model": "multiverse_vllm.worker.drafter.SharedNGrams", "num_speculative_tokens": 4}'
)
"""Whatever any row said, anew."""
NGRAM = (
    "--speculative-algorithm",
    "NGRAM",
    "--speculative-num-draft-tokens",
    "4",
    "--speculative-ngram-capacity",
    "100000",
)
"""SGLang's own, in less memory than by default."""
MODES: dict[str, dict[str, tuple[str, ...]]] = {
    "vllm": {
        "step by step": (),
        "a step ahead": ("--distributed-executor-backend", "late_executor.LateExecutor"),
        "with promises": ("--distributed-executor-backend", "late_executor.LateExecutor", *SLACK),
        "with drafts": ("--speculative-config", DRAFTS),
    },
    "sglang": {
        "step by step": ("--disable-overlap-schedule",),
        "a step ahead": (),
        "pages of 16": ("--page-size", "16"),
        "with promises": SLACK,
        "with drafts": ("--disable-overlap-schedule", *NGRAM),
    },
}
ROUND = 250
PATIENCE = 300.0
"""Seconds for an answer. Whoever hangs does so for ever; on a busy machine others wait for minutes."""


COUNTED = ("engine_ends", "controls_changed", "server_errors")
"""What is added up over both hosts."""


def main() -> None:
    """Run every mode, print, write figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5000, help="of each mode (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--mode", action="append", help="only this one, as often as you like")
    parser.add_argument("--first", type=int, default=1, help="number of the first round (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tries", type=int, default=24, help="servers to find the smallest failing mix")
    parser.add_argument("--record", action="store_true", help="write mixed.json and figures.json")
    options = parser.parse_args()
    host = next(filter(installed, MODES))
    held = [run_mode(host, mode, options) for mode in options.mode or MODES[host]]
    sys.exit(not all(held))


def run_mode(host: str, mode: str, options: argparse.Namespace) -> bool:
    """One server, all rounds; the smallest failing mix if there is one. Whether the server held."""
    settings = Settings(
        url="",
        dialect=registry.get("multiverse"),
        questions=[problem.prompt for problem in islice(stream(1), 6)],
        rounds=-(-options.requests // ROUND),
        requests=min(ROUND, options.requests),
        concurrency=options.concurrency,
        max_tokens=250,
        mixed=0.8,
        operate=True,
        promises=SLACK[0] in MODES[host][mode],
        first=options.first,
        seed=options.seed,
        patience=PATIENCE,
    )
    begun = time.monotonic()
    report = on_a_fresh_server(
        host, mode, settings, lambda round_: print(f"{host}, {mode}: {told(round_)}", flush=True)
    )
    result = {**counted(report), "seed": options.seed, "minutes": round((time.monotonic() - begun) / 60)}
    print(f"{host}, {mode}: {result}", *report.problems[:20], sep="\n  ", flush=True)
    if options.record:
        enter(host, mode, result)
    if report.problems:
        tell_smallest(host, mode, settings, report, options.tries)
    return not report.problems


def counted(report: Report) -> dict[str, int]:
    """A mode in numbers: drawn requests that were answered, and what must not be."""
    results = [result for each in report.rounds for result in each.results] + report.lost
    outcomes = Counter(result.outcome for result in results)
    return {
        "requests": len(report.rounds) * report.settings.requests,
        "engine_ends": int(report.gone is not None),
        "controls_changed": outcomes["different"],
        "server_errors": outcomes["failed"],
        "problems": len(report.problems),
    }


def enter(host: str, mode: str, result: dict[str, int]) -> None:
    """Keep what came of a mode, and add up what there is of all."""
    runs = keep("mix", f"{host}, {mode}", result, f"make mix HOST={host}")
    own = [run["requests"] for name, run in runs.items() if name.startswith(host)]
    record(f"mix_requests_{host}", sum(own), f"make mix HOST={host}")
    for name in COUNTED:
        record(f"mix_{name}", sum(run[name] for run in runs.values()), "make mix")


def told(round_: Round) -> str:
    counts = ", ".join(f"{number} {outcome}" for outcome, number in sorted(round_.counts.items()))
    bad = [f"\n  {each.ask.kind}: {each.detail}" for each in round_.results if each.outcome in ("failed", "different")]
    return f"round {round_.number}: {round_.seconds:.0f} s, {counts}, {round_.rest}{''.join(bad)}"


def on_a_fresh_server(host: str, mode: str, settings: Settings, tell: Callable[[Round], None]) -> Report:
    """Start a server as `mode` says, run, and stop it."""
    os.environ |= {"VLLM_SERVER_DEV_MODE": "1", "MULTIVERSE_INTEGRITY_INTERVAL": "50"}
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(CONFORMANCE), os.environ.get("PYTHONPATH", "")]))
    port = free_port()
    with Server(command(host, str(TINY), port, [*SCARCE[host], *MODES[host][mode]]), port) as server:
        server.wait(600)
        report = asyncio.run(stress(replace(settings, url=server.url), tell, lambda *_: None))
        if report.problems:
            BUILD.mkdir(exist_ok=True)
            log = shutil.copy(server.log, BUILD / f"mix-{host}.log")
            print(*report.problems[:10], f"the server's log is {log}", sep="\n", flush=True)
        return report


def tell_smallest(host: str, mode: str, settings: Settings, report: Report, tries: int) -> None:
    """Find the smallest part of the round that fails, and write it as a program."""
    bad = [
        each.number
        for each in report.rounds
        if any(result.outcome in ("failed", "different") for result in each.results)
    ]
    number = bad[0] if bad else len(report.rounds) + 1
    failed: dict[frozenset[int], Report] = {}

    def fails(only: frozenset[int]) -> bool:
        tried = replace(settings, first=number, rounds=1, only=only)
        try:
            found = on_a_fresh_server(host, mode, tried, lambda _: None)
        except RunError:
            return False
        print(f"{len(only)} requests of round {number}: {'fails' if found.problems else 'holds'}", flush=True)
        if found.problems:
            failed[only] = found
        return bool(found.problems)

    smallest = shrink(range(settings.requests), fails, tries)
    found = failed.get(smallest, report)
    results = [result for each in found.rounds for result in each.results] + found.lost
    asks = [*found.unanswered, *(result.ask for result in results if result.outcome in ("failed", "different"))]
    file = BUILD / f"mix-{host}.py"
    file.write_text(script(f"{host}, {mode}", found.problems[0], asks))
    print(f"smallest: {len(smallest)} requests of round {number}, seed {settings.seed}; {file} repeats what failed")


if __name__ == "__main__":
    main()
