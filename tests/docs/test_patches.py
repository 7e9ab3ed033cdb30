"""patches/: the ledger has an entry per patch, and what it says is replaced stands in the hook tables."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "patches"))

from overlay import SOURCES, TESTS, Patch, series  # noqa: E402

LEDGER = (ROOT / "patches/README.md").read_text()
PARTS = ("Why", "How", "Replaces", "Used natively", "Related upstream", "Retired by")
THREAD = r"https://github\.com/(vllm-project|sgl-project)/[\w-]+/(pull|issues)/\d+"
PATCHES = [pytest.param(patch, id=patch.name) for patch in series()]


def entry(patch: Patch) -> str:
    """What the ledger says of a patch, from its heading to the next."""
    (chapter,) = re.findall(rf"^## \w+ {re.escape(patch.release)}\n(.*?)(?=^## |\Z)", LEDGER, re.M | re.S)
    (found,) = re.findall(rf"^### {patch.name}\n(.*?)(?=^### |\Z)", chapter, re.M | re.S)
    return str(found)


def part(patch: Patch, name: str) -> str:
    found = re.search(rf"^- \*\*{name}.*?(?=^- \*\*|\Z)", entry(patch), re.M | re.S)
    assert found, f"{patch.name} has no {name}"
    return found[0]


def test_the_series_the_files_and_the_ledger_name_the_same_patches() -> None:
    names = {patch.name for patch in series()}
    assert {file.stem for file in (ROOT / "patches").glob("*/*.patch")} == names
    assert set(re.findall(r"^### (\S+)$", LEDGER, re.M)) == names


@pytest.mark.parametrize("patch", PATCHES)
def test_an_entry_has_all_parts_and_names_a_thread(patch: Patch) -> None:
    for name in PARTS:
        assert len(part(patch, name)) > len(f"- **{name}.** ") + 5
    assert re.search(THREAD, part(patch, "Related upstream"))


@pytest.mark.parametrize("patch", PATCHES)
def test_what_is_replaced_is_in_the_hook_table(patch: Patch) -> None:
    module = import_module(f"multiverse_{patch.host}.hooks")
    rows = [hook for table in vars(module).values() if isinstance(table, tuple) for hook in table]
    targets = [hook.target.replace(":", ".") for hook in rows if hasattr(hook, "target")]
    named = re.findall(r"`([\w.:]+)[^`]*`", part(patch, "Replaces"))
    assert named
    for name in named:
        assert any(target.endswith(f".{name.replace(':', '.')}") for target in targets), name


@pytest.mark.parametrize("patch", PATCHES)
def test_a_patch_brings_a_test_and_little_else_than_it_changes(patch: Patch) -> None:
    text = patch.file.read_text()
    assert text.startswith("Subject: [")
    places = re.findall(r"^\+\+\+ b/(\S+)$", text, re.M)
    tests = [place for place in places if place.startswith(f"{TESTS[patch.host]}/")]
    package = (Path(SOURCES[patch.host]) / patch.host).as_posix()
    assert len(tests) == 1
    assert all(place.startswith(f"{package}/") for place in places if place not in tests)
    diff = text.partition("\n---\n")[2]
    hunks = re.split(r"^@@.*\n", diff, flags=re.M)[1:]
    assert all(sum(line.startswith(" ") for line in hunk.split("\ndiff ")[0].splitlines()) <= 8 for hunk in hunks)
