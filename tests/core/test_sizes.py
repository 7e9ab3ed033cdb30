"""Files and functions that can be read at a sitting: 250 lines, 40 lines."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from sizes import files, functions, lines  # noqa: E402


@pytest.mark.parametrize("package", ["multiverse", "multiverse_vllm", "multiverse_sglang"])
def test_no_file_has_more_than_250_lines(package: str) -> None:
    found = list(files(package))
    assert found
    assert [(str(file), length) for file in found if (length := lines(file)) > 250] == []


@pytest.mark.parametrize("package", ["multiverse", "multiverse_vllm", "multiverse_sglang"])
def test_no_function_has_more_than_40_lines(package: str) -> None:
    found = [function for file in files(package) for function in functions(file)]
    assert found
    assert [(place, length) for length, place in found if length > 40] == []


def test_the_top_of_the_core_is_short() -> None:
    assert len([entry for entry in (ROOT / "multiverse").iterdir() if entry.name != "__pycache__"]) <= 20
