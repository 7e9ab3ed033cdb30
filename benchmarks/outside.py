"""How much of what outside software does is held by a test, and how many surprises are written down.

Runs the contracts of `tests/outside` in the environments of core, vLLM and SGLang (`make test-outside` sets them up)
and every script of `findings`, and records in benchmarks/results/figures.json how many passed. One that fails ends it.
"""

from __future__ import annotations

import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from figures import ROOT, record

COMMAND = "python benchmarks/outside.py"
ENVIRONMENTS = {"core": ("core",), "vllm": ("vllm", "clients"), "sglang": ("sglang", "clients")}
"""The directories of `tests/outside` that run in each environment."""


def contracts() -> int:
    """Run them; a contract that holds in two environments counts once.

    Raises:
        subprocess.CalledProcessError: if one fails.
    """
    passed: set[tuple[str, str]] = set()
    for environment, directories in ENVIRONMENTS.items():
        with tempfile.TemporaryDirectory() as directory:
            report = Path(directory, "report.xml")
            python = str(ROOT / f".venvs/{environment}/bin/python")
            tests = [f"tests/outside/{name}" for name in directories]
            subprocess.run([python, "-m", "pytest", f"--junit-xml={report}", *tests], cwd=ROOT, check=True)
            cases = ElementTree.parse(report).iter("testcase")
            passed |= {(case.attrib["classname"], case.attrib["name"]) for case in cases if not len(case)}
    return len(passed)


def findings() -> int:
    """Run them.

    Raises:
        subprocess.CalledProcessError: if one fails.
    """
    scripts = sorted((ROOT / "findings").glob("*.sh"))
    for script in scripts:
        print(f"== {script.name} ==", flush=True)
        subprocess.run(["bash", str(script)], check=True)
    return len(scripts)


if __name__ == "__main__":
    record("outside_contracts", contracts(), COMMAND)
    record("findings", findings(), COMMAND)
