"""Runs a host's suites on a release of it, over the installed one, and counts the releases on which all are green.

    python benchmarks/releases.py vllm 0.33.0 conformance e2e --record

What came of each suite goes to benchmarks/results/mixed.json, the number of green releases to figures.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

from figures import ROOT, keep, record

SUITES = ("conformance", "e2e")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host", choices=("vllm", "sglang"))
    parser.add_argument("release")
    parser.add_argument("suites", nargs="+", choices=SUITES)
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    green = True
    for suite in given.suites:
        result = run(given.host, given.release, suite)
        print(f"{given.host} {given.release} {suite}: {result}", flush=True)
        green &= not result["failed"]
        if given.record:
            name = f"{given.host} {given.release} {suite}"
            runs = keep("releases", name, result, f"benchmarks/releases.py {name} --record")
            count_green(given.host, runs)
    sys.exit(0 if green else 1)


def run(host: str, release: str, suite: str) -> dict[str, Any]:
    """What came of one suite: tests that passed, and that did not, and seconds by the clock."""
    overlay = subprocess.run([ROOT / "tools/overlay", host, release], capture_output=True, text=True, check=True)
    environment = os.environ | {"PYTHONPATH": f"{overlay.stdout.strip()}:{ROOT}"}
    with TemporaryDirectory() as directory:
        report, begun = Path(directory, "report.xml"), time.monotonic()
        command = [ROOT / f".venvs/{host}/bin/python", "-m", "pytest", "-v", "-m", "not long", f"--junitxml={report}"]
        subprocess.run([*command, f"tests/{suite}"], cwd=ROOT, env=environment, check=False)
        cases = [{child.tag for child in case} for case in ElementTree.parse(report).iter("testcase")]
    bad = sum(bool(kinds & {"failure", "error"}) for kinds in cases)
    skipped = sum("skipped" in kinds for kinds in cases)
    counts = {"passed": len(cases) - bad - skipped, "failed": bad, "skipped": skipped}
    return {**counts, "seconds": round(time.monotonic() - begun)}


def count_green(host: str, runs: dict[str, dict[str, Any]]) -> None:
    """Record on how many releases every suite was green when it was run last."""
    mine = {name: result for name, result in runs.items() if name.startswith(f"{host} ")}
    releases = {name.split()[1] for name in mine}
    green = [
        release
        for release in releases
        if all(mine.get(f"{host} {release} {suite}", {"failed": 1})["failed"] == 0 for suite in SUITES)
    ]
    if green:
        named = "|".join(sorted(green))
        record(f"{host}_releases_green", len(green), f"benchmarks/releases.py {host} {named} conformance e2e --record")


if __name__ == "__main__":
    main()
