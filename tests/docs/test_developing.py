"""What docs/developing.md and docs/internals.md name is there: folders, files, functions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATH = re.compile(r"`((?:multiverse|multiverse_vllm|multiverse_sglang|tests|docs|tools|benchmarks)/[\w./*-]*)`")


@pytest.mark.parametrize("page", ["developing.md", "internals.md"])
def test_the_paths_on_a_page_exist(page: str) -> None:
    named = set(PATH.findall((ROOT / "docs" / page).read_text()))
    assert len(named) > 3
    assert [path for path in named if not list(ROOT.glob(path.rstrip("/")))] == []


def test_ten_tasks_have_their_answers() -> None:
    rows = (ROOT / "docs/developing.md").read_text().split("## Find it", 1)[1].split("\n## ", 1)[0]
    tasks = [row for row in re.findall(r"^\| (.+?\?) \| (.+?) \|$", rows, re.M) if PATH.search(row[1])]
    assert len(tasks) == 10
