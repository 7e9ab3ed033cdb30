"""What docs/developing.md and docs/internals.md name is there: folders, files, functions."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("multiverse", "multiverse_vllm", "multiverse_sglang")
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


def defined() -> dict[str, set[str]]:
    """By name of a class of ours, its methods, fields and what is set on `self`."""
    found: dict[str, set[str]] = {}
    files = [file for package in PACKAGES for file in ROOT.glob(f"{package}/**/*.py")]
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.ClassDef):
            names = [getattr(part, "name", getattr(getattr(part, "target", None), "id", "")) for part in node.body]
            attributes = [part for part in ast.walk(node) if isinstance(part, ast.Attribute)]
            own = [part.attr for part in attributes if isinstance(part.value, ast.Name) and part.value.id == "self"]
            found.setdefault(node.name, set()).update(names, own)
    return found


def test_the_methods_on_the_page_of_internals_exist() -> None:
    ours, text = defined(), (ROOT / "docs/internals.md").read_text()
    named = [(owner, name) for owner, name in re.findall(r"`([A-Z]\w+)\.(\w+)`", text) if owner in ours]
    assert len(named) > 40
    assert [f"{owner}.{name}" for owner, name in named if name not in ours[owner]] == []


@pytest.mark.parametrize(("section", "package"), [("vLLM", "multiverse_vllm"), ("SGLang", "multiverse_sglang")])
def test_the_files_of_a_hosts_section_exist(section: str, package: str) -> None:
    text = (ROOT / "docs/internals.md").read_text().split(f"## A request in {section}\n", 1)[1].split("\n## ", 1)[0]
    named = {name for name in re.findall(r"`([\w/]+\.py)`", text) if not name.startswith(("multiverse", "tests"))}
    assert len(named) > 15
    assert [name for name in named if not list((ROOT / package).rglob(name))] == []
