"""README's table of figures says what benchmarks/results/figures.json says, and each figure says how it was got."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIGURES = json.loads((ROOT / "benchmarks/results/figures.json").read_text())


def test_the_table_is_made_from_the_figures() -> None:
    made = subprocess.run([sys.executable, ROOT / "tools/figures", "--check"], check=False, capture_output=True)
    assert made.returncode == 0, made.stderr.decode()


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_one_number_with_its_origin(name: str) -> None:
    figure = FIGURES[name]
    assert set(figure) == {"value", "date", "command", "commit", "machine"}
    assert isinstance(figure["value"], int | float)
    assert all(figure[part] for part in ("date", "command", "commit", "machine"))
