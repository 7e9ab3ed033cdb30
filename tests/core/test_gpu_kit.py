"""`tools/gpu/accept`: a stage ends in time, every result is on disk as soon as it is there, the page says it all."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools/gpu"))

from checks import STAGES, Check, Setting, Stage  # noqa: E402
from page import PAGE, write  # noqa: E402
from running import RESULTS, Outcome, Results, run_stage, run_together  # noqa: E402
from wheels import HOSTS, WheelError, install, pip  # noqa: E402


def program(name: str, code: str, **other: object) -> Check:
    return Check(name, f"what {name} tries", str(other.pop("environment", "core")), ("-c", code), **other)  # type: ignore[arg-type]


CHECKS = [
    program("good", "import os; print('FIGURE worst', 0.25); print('threads', os.environ['OMP_NUM_THREADS'])"),
    program("bad", "print('the reason'); raise SystemExit(3)"),
    program("poor", "", needs=("no_such_module",)),
    program("homeless", "", environment="vllm"),
    program("slow", "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"),
    program("late", ""),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    output = tmp_path_factory.mktemp("gpu")
    setting = Setting("cpu", output, {"core": sys.executable})
    begun = time.monotonic()
    outcomes = list(run_stage(Stage("kernels", "a stage", lambda _: CHECKS), setting, begun + 9))
    assert time.monotonic() - begun < 30, "what a check has started ends with it"
    return {outcome.name: outcome for outcome in outcomes}


def test_what_came_of_each_check(found: dict[str, Outcome]) -> None:
    assert {name: outcome.state for name, outcome in found.items()} == {
        "good": "passed",
        "bad": "failed",
        "poor": "left out",
        "homeless": "left out",
        "slow": "not finished",
        "late": "not finished",
    }
    assert found["good"].figures == {"worst": 0.25}
    assert found["good"].tail[-1] == "threads 1"
    assert (found["bad"].why, found["bad"].tail) == ("status 3", ["the reason"])
    assert "no_such_module" in found["poor"].why


def test_results_are_kept_from_call_to_call_and_the_page_tells_them(
    found: dict[str, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "running.facts", lambda *_: {"date": "today", "commit": "abc", "releases": {"core": ["torch 2"]}}
    )
    results = Results.read(tmp_path, "cpu", {"core": sys.executable})
    for outcome in found.values():
        results.add(outcome)
        results.save()
    again = Results.read(tmp_path, "cpu", {})
    again.add(Outcome("kernels", "bad", "what bad tries", "passed"))
    states = {outcome.name: outcome.state for outcome in again.outcomes}
    assert (states["bad"], states["good"], len(states)) == ("passed", "passed", len(CHECKS))
    assert Results.read(tmp_path, "cuda", {}).outcomes == [], "a rehearsal says nothing of a card"
    assert json.loads((tmp_path / RESULTS).read_text())["outcomes"][0]["command"].startswith(sys.executable)
    write(results)
    page = (tmp_path / PAGE).read_text()
    assert "no kernel of a GPU ran" in page
    assert "worst 0.25" in page
    assert "| the reason" in page
    assert "1 passed, 1 failed, 2 left out, 2 not finished" in page
    assert max(map(len, page.splitlines())) <= 130


def test_what_two_calls_find_at_the_same_time_is_all_kept(tmp_path: Path) -> None:
    calls = [Results(tmp_path, {"device": "cuda"}) for _ in range(2)]
    for call, name in zip(calls, ("one", "other"), strict=True):
        call.keep(Outcome("kernels", name, "", "passed"))
    assert [outcome["name"] for outcome in json.loads((tmp_path / RESULTS).read_text())["outcomes"]] == ["one", "other"]


MEETS = """
import sys, time
from pathlib import Path
here = Path({folder!r})
assert (here / "first").exists()
(here / {name!r}).touch()
while not (here / {other!r}).exists():
    time.sleep(0.05)
"""


def test_stages_at_the_same_time_wait_for_what_they_build_on_and_for_nothing_else(tmp_path: Path) -> None:
    def meeting(name: str, other: str) -> Check:
        return program(name, MEETS.format(folder=str(tmp_path), name=name, other=other))

    first = program("made", f"import time; time.sleep(1); open({str(tmp_path / 'first')!r}, 'w')", first=True)
    stages = [
        Stage("moves", "", lambda _: [meeting("left", "right")]),
        Stage("vllm", "", lambda _: [meeting("right", "left"), first]),
    ]
    outcomes = list(run_together(stages, Setting("cpu", tmp_path, {"core": sys.executable}), time.monotonic() + 60))
    assert [outcome.state for outcome in outcomes] == ["passed"] * 3
    assert (outcomes[0].stage, outcomes[0].name) == ("vllm", "made")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_commands_name_what_is_there(device: str, tmp_path: Path) -> None:
    setting = Setting(device, tmp_path, dict.fromkeys((*HOSTS, "kernels"), sys.executable))
    names = []
    for stage in STAGES:
        for check in stage.checks(setting):
            names.append((stage.name, check.name))
            assert check.environment in setting.pythons
            assert all((ROOT / part).exists() for part in check.arguments if part.endswith(".py")), check.arguments
    assert len(set(names)) == len(names)
    assert ("kernels", "cascade") in names or device == "cpu"


def test_only_wheels_that_were_carried_are_installed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(tmp_path, ["vllm"])
    assert "vllm is left out" in capsys.readouterr().out
    with pytest.raises(WheelError, match="no such option"):
        pip(sys.executable, "--no-such")


def test_the_command_itself(tmp_path: Path) -> None:
    wrong = subprocess.run(
        [sys.executable, ROOT / "tools/gpu/accept", "--only", "nothing", "-o", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 2
    assert "unknown: nothing" in wrong.stderr
