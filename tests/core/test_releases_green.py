"""When a release of a host counts as green: every suite whole, in whatever parts, and nothing failed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "benchmarks")]

from benchmarks.releases import SUITES, files, green_releases  # noqa: E402

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
