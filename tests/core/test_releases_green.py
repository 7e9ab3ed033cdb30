"""When a release of a host counts as green: every suite whole, in whatever parts, and nothing failed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "benchmarks")]

from benchmarks.releases import SUITES, completed, files, green_releases  # noqa: E402

WHOLE = {"vllm 0.33.0 conformance 1/2": 0, "vllm 0.33.0 conformance 2/2": 0, "vllm 0.33.0 e2e 1/1": 0}


@pytest.mark.parametrize(
    ("more", "green"),
    [
        ({}, ["0.33.0"]),
        ({"vllm 0.33.0 conformance 2/2": 1}, []),
        ({"vllm 0.31.0 conformance 1/1": 0}, ["0.33.0"]),
        ({"vllm 0.31.0 conformance 1/1": 0, "vllm 0.31.0 e2e 1/1": 0}, ["0.31.0", "0.33.0"]),
        ({"vllm 0.33.0 conformance 1/3": 0}, []),
        ({"sglang 0.33.0 e2e 1/1": 1}, ["0.33.0"]),
    ],
)
def test_a_release_is_green_if_every_suite_ran_whole_and_nothing_failed(more: dict[str, int], green: list[str]) -> None:
    runs = {name: {"failed": failed} for name, failed in (WHOLE | more).items()}
    assert green_releases("vllm", runs) == green


@pytest.mark.parametrize("suite", SUITES)
def test_parts_of_a_suite_are_all_of_its_files(suite: str) -> None:
    parts = [files(suite, f"{number}/3") for number in (1, 2, 3)]
    assert sorted(file for part in parts for file in part) == files(suite, "1/1")
    assert all(parts)


def test_what_failed_is_run_again_alone_and_all_of_it() -> None:
    before = {"passed": 435, "failed": 2, "skipped": 3, "seconds": 100, "commit": "abc"}
    again = {"passed": 2, "failed": 0, "failing": [], "skipped": 0, "seconds": 5}
    whole = completed(before, again)
    assert {name: whole[name] for name in ("passed", "failed", "skipped", "again")} == {
        "passed": 437, "failed": 0, "skipped": 3, "again": 2
    }  # fmt: skip
    assert (whole["failing"], whole["others_at"]) == ([], "abc")
    with pytest.raises(AssertionError, match="2 failed, 1 were run again"):
        completed(before, {**again, "passed": 1})
