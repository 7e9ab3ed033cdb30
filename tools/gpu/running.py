"""Runs checks, each in a process of its own, and keeps what they found."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path

from checks import Check, Setting, Stage

ROOT = Path(__file__).resolve().parents[2]
RESULTS = "results.json"
LINES = 25
"""Of the end of a check's output that are kept."""
FIGURE = re.compile(r"^FIGURE (\S+) (\S+)$", re.M)
"""How a check tells a number: its name and its value."""
PASSED = re.compile(r"(\d+) (passed|failed|skipped)")
"""How pytest does."""


@dataclass
class Outcome:
    """What came of a check: `passed`, `failed`, `not finished` (its stage's time was over), or `left out`."""

    stage: str
    name: str
    what: str
    state: str
    seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    why: str = ""
    command: str = ""
    tail: list[str] = field(default_factory=list)


@dataclass
class Results:
    """Everything that was found, in the order of stages."""

    output: Path
    about: dict[str, object]
    outcomes: list[Outcome] = field(default_factory=list)

    @classmethod
    def read(cls, output: Path, device: str, pythons: dict[str, str]) -> Results:
        """What an earlier call left in `output`, if it was on the same device."""
        about = {"device": device, "environments": pythons, **facts(device, pythons)}
        found = cls(output, about)
        found.outcomes = found._known()
        return found

    def _known(self) -> list[Outcome]:
        if not (self.output / RESULTS).exists():
            return []
        before = json.loads((self.output / RESULTS).read_text())
        same = before["about"]["device"] == self.about["device"]
        return [Outcome(**outcome) for outcome in before["outcomes"]] if same else []

    def keep(self, outcome: Outcome) -> None:
        """Add it to what is on disk, where another call may be adding at the same time."""
        with (self.output / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.outcomes = self._known()
            self.add(outcome)
            self.save()

    def add(self, outcome: Outcome) -> None:
        """In place of what an earlier run of the check found."""
        key = (outcome.stage, outcome.name)
        self.outcomes = [*(one for one in self.outcomes if (one.stage, one.name) != key), outcome]

    def save(self) -> None:
        data = {"about": self.about, "outcomes": [asdict(outcome) for outcome in self.outcomes]}
        new = self.output / f"{RESULTS}.new"
        new.write_text(json.dumps(data, indent=1) + "\n")
        new.replace(self.output / RESULTS)


def facts(device: str, pythons: dict[str, str]) -> dict[str, object]:
    """The card, by its driver; the commit; releases."""
    found: dict[str, object] = {"date": time.strftime("%Y-%m-%d %H:%M")}
    found["commit"] = _said("git", "rev-parse", "--short", "HEAD")
    if device == "cuda":
        found["card"] = _said("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
        found["nvcc"] = _said("nvcc", "--version").rpartition("release ")[2].partition(",")[0]
    packages = ("torch", "triton", "flashinfer-python", "vllm", "sglang", "sglang-kernel")
    code = f"from importlib import metadata as m\nfor n in {packages}:\n"
    code += " try: print(n, m.version(n))\n except m.PackageNotFoundError: pass"
    found["releases"] = {name: _said(python, "-c", code).splitlines() for name, python in pythons.items()}
    labels = {name: Path(python).parents[1] / "label" for name, python in pythons.items()}
    found["labels"] = {name: file.read_text() for name, file in labels.items() if file.exists()}
    return found


def _said(*command: str) -> str:
    """What a program says; nothing if there is none."""
    try:
        return _output(*command).strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _output(*command: str, environment: dict[str, str] | None = None) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120, check=False)
    return ended.stdout


def run_stage(stage: Stage, setting: Setting, end: float) -> Iterator[Outcome]:
    """Its checks, one after the other, until `end` by `time.monotonic()`."""
    for check in stage.checks(setting):
        yield run_check(stage.name, check, setting, end)


def run_together(stages: Sequence[Stage], setting: Setting, end: float) -> Iterator[Outcome]:
    """All checks of `stages` at the same time, after those that others build on; in the order in which they end."""
    checks = [(stage.name, check) for stage in stages for check in stage.checks(setting)]
    for first in (True, False):
        chosen = [(stage, check) for stage, check in checks if check.first is first]
        with ThreadPoolExecutor(max(1, len(chosen))) as pool:
            futures = [pool.submit(run_check, stage, check, setting, end) for stage, check in chosen]
            yield from (future.result() for future in as_completed(futures))


def run_check(stage: str, check: Check, setting: Setting, end: float) -> Outcome:
    outcome = Outcome(stage, check.name, check.what, "left out")
    python = setting.pythons.get(check.environment)
    if python is None:
        outcome.why = f"there is no environment {check.environment}"
        return outcome
    if absent := _absent(python, check.needs, setting.variables):
        outcome.why = f"{check.environment} has no {', '.join(absent)}"
        return outcome
    left = end - time.monotonic()
    if left < 5:
        outcome.state, outcome.why = "not finished", "the stage's time was over"
        return outcome
    begun, log = time.monotonic(), setting.output / f"{stage}-{check.name}.log"
    outcome.command = " ".join([python, *check.arguments])
    status = _run([python, *check.arguments], {**os.environ, **setting.variables, **check.variables}, log, left)
    outcome.seconds = round(time.monotonic() - begun, 1)
    text = log.read_text(errors="replace")
    outcome.tail = text.splitlines()[-LINES:]
    outcome.figures = {name: float(value) for name, value in FIGURE.findall(text)}
    outcome.figures |= {kind: float(count) for count, kind in PASSED.findall("".join(outcome.tail[-1:]))}
    if status is None:
        outcome.state, outcome.why = "not finished", "the stage's time was over"
    else:
        outcome.state, outcome.why = ("failed", f"status {status}") if status else ("passed", "")
    return outcome


def _absent(python: str, modules: tuple[str, ...], variables: dict[str, str]) -> list[str]:
    """Which of them an environment has not, nor beside it, where `tools/setup` puts Triton."""
    code = f"""
import sys
from importlib.util import find_spec
sys.path.append(sys.prefix + "/triton")
print(*[name for name in {modules!r} if find_spec(name) is None])"""
    return _output(python, "-c", code, environment={**os.environ, **variables}).split()


def _run(command: list[str], variables: dict[str, str], log: Path, seconds: float) -> int | None:
    """Its status; `None` if it was ended after so many seconds, with all processes that it started."""
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=variables, cwd=ROOT, start_new_session=True
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None
