"""Runs a host's suites on a release of it, over the installed one, and counts the releases on which all are green.

    python benchmarks/releases.py vllm 0.33.0 conformance e2e --record
    python benchmarks/releases.py vllm 0.33.0 conformance --part 2/3 --record
    python benchmarks/releases.py vllm 0.33.0 e2e --again --record

The conformance suite runs in every mode of scheduling. What came of each suite, or of a part of its files, goes to
benchmarks/results/mixed.json, the number of green releases to figures.json. What failed, by a test that was wrong, can
be run again alone once it is mended: the run then says of how many of its tests that is so, and at which commit the
others passed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

from figures import ROOT, RUNS, keep, record

SUITES = {"conformance": "not long or mode", "e2e": "not long"}
"""By folder of tests, the marks of those that run."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host", choices=("vllm", "sglang"))
    parser.add_argument("release")
    parser.add_argument("suites", nargs="+", choices=SUITES)
    parser.add_argument("--part", default="1/1", help="of the files of a suite, the second third is 2/3")
    parser.add_argument("--again", action="store_true", help="only what failed when it was recorded last")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    green = True
    for suite in given.suites:
        name = f"{given.host} {given.release} {suite}"
        before = json.loads(RUNS.read_text())["releases"][f"{name} {given.part}"] if given.again else None
        tests = before["failing"] if before else files(suite, given.part)
        result = run(given.host, given.release, SUITES[suite], tests)
        print(f"{name} {given.part}: {result}", flush=True)
        green &= not result["failed"]
        if before:
            result = completed(before, result)
        if given.record:
            runs = keep(
                "releases",
                f"{name} {given.part}",
                result,
                f"benchmarks/releases.py {name} --part {given.part} --record",
            )
            count_green(given.host, runs)
    sys.exit(0 if green else 1)


def completed(before: Mapping[str, Any], again: Mapping[str, Any]) -> dict[str, Any]:
    """What came of a run of which all that had failed was run again."""
    ran = again["passed"] + again["failed"]
    assert ran == before["failed"], f"{before['failed']} failed, {ran} were run again"
    return {
        "passed": before["passed"] + again["passed"],
        "failed": again["failed"],
        "failing": again["failing"],
        "skipped": before["skipped"],
        "seconds": before["seconds"] + again["seconds"],
        "again": ran,
        "others_at": before.get("others_at", before["commit"]),
    }


def files(suite: str, part: str) -> list[str]:
    """Those of a suite that belong to a part of it, as 2/3: every third file, from the second one on."""
    number, parts = map(int, part.split("/"))
    assert 0 < number <= parts, part
    every = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "tests" / suite).glob("test_*.py"))
    return every[number - 1 :: parts]


def run(host: str, release: str, marks: str, tests: Sequence[str]) -> dict[str, Any]:
    """What came of files or tests, of what is so marked: tests that passed, that did not, seconds by the clock."""
    overlay = subprocess.run([ROOT / "tools/overlay", host, release], capture_output=True, text=True, check=True)
    environment = os.environ | {"PYTHONPATH": f"{overlay.stdout.strip()}:{ROOT}"}
    with TemporaryDirectory() as directory:
        report, begun = Path(directory, "report.xml"), time.monotonic()
        command = [ROOT / f".venvs/{host}/bin/python", "-m", "pytest", "-v", f"--junitxml={report}"]
        subprocess.run([*command, "-m", marks, *tests], cwd=ROOT, env=environment, check=False)
        if not report.exists():
            raise SystemExit(f"{host} {release}: pytest was killed, maybe for want of memory: nothing counts")
        cases = {name_of(case): {child.tag for child in case} for case in ElementTree.parse(report).iter("testcase")}
    bad = sorted(name for name, kinds in cases.items() if kinds & {"failure", "error"})
    skipped = sum("skipped" in kinds for kinds in cases.values())
    counts = {"passed": len(cases) - len(bad) - skipped, "failed": len(bad), "failing": bad, "skipped": skipped}
    return {**counts, "seconds": round(time.monotonic() - begun)}


def name_of(case: ElementTree.Element) -> str:
    """A test as pytest takes it, by its entry in a report."""
    return f"{case.attrib['classname'].replace('.', '/')}.py::{case.attrib['name']}"


def count_green(host: str, runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Record on how many releases all parts of every suite were green when they were run last."""
    green = green_releases(host, runs)
    if green:
        named = "|".join(green)
        record(f"{host}_releases_green", len(green), f"benchmarks/releases.py {host} {named} conformance e2e --record")


def green_releases(host: str, runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Those of which every suite was run whole, however it was divided, and nothing failed in any run of it."""
    passed: dict[tuple[str, str], Fraction] = {}
    for name, result in runs.items():
        of, release, suite, part = name.split()
        if of == host:
            share = Fraction(1, int(part.split("/")[1])) if result["failed"] == 0 else Fraction(-len(runs))
            passed[release, suite] = passed.get((release, suite), Fraction()) + share
    releases = sorted({release for release, _ in passed})
    return [release for release in releases if all(passed.get((release, suite), 0) == 1 for suite in SUITES)]


if __name__ == "__main__":
    main()
