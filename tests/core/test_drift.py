"""`tools/drift`: what of a hook table changes between two releases of a host is seen without importing them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from multiverse.serving.source import Source

ROOT = Path(__file__).parents[2]

BASE = '''
class Base:
    """Says something."""

    def inherited(self, first, *, second=None):
        """Is inherited."""
        return self.field + first  # a comment
'''
MODULE = """
from .base import Base
from pkg.other import helper as renamed

LIMIT = 3

class Child(Base):
    def own(self, a):
        return a
"""


@pytest.fixture
def release(tmp_path: Path) -> Path:
    files = {"__init__": "from .module import Child", "base": BASE, "module": MODULE, "other": "def helper(x): ..."}
    for name, text in files.items():
        (tmp_path / "pkg").mkdir(exist_ok=True)
        (tmp_path / f"pkg/{name}.py").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("pkg.module:Child.own", {"self", "a"}),
        ("pkg.module:Child.inherited", {"self", "first", "second"}),
        ("pkg:Child.inherited", {"self", "first", "second"}),
        ("pkg.module:renamed", {"x"}),
        ("pkg.module:LIMIT", set()),
    ],
)
def test_what_is_defined_inherited_or_imported_is_found(release: Path, target: str, names: set[str]) -> None:
    found = Source(release).find(target)
    assert found is not None
    assert found.names == names


def test_a_class_knows_what_its_bases_mention(release: Path) -> None:
    found = Source(release).find("pkg.module:Child")
    assert found is not None
    assert {"field", "own", "inherited"} <= found.names


@pytest.mark.parametrize("target", ["pkg.module:Child.gone", "pkg.module:gone", "pkg.gone:Child", "gone:Child"])
def test_what_is_not_there_is_not_found(release: Path, target: str) -> None:
    assert Source(release).find(target) is None


def test_words_about_code_are_no_change_and_one_line_of_code_is(release: Path) -> None:
    before = Source(release).find("pkg.module:Child.inherited")
    (release / "pkg/base.py").write_text(BASE.replace("Is inherited.", "Other words.").replace("# a comment", ""))
    same = Source(release).find("pkg.module:Child.inherited")
    (release / "pkg/base.py").write_text(BASE.replace("self.field + first", "self.field - first"))
    other = Source(release).find("pkg.module:Child.inherited")
    assert before == same
    assert before != other


def test_a_report_names_what_is_gone_and_ends_with_one(tmp_path: Path) -> None:
    from multiverse_vllm.hooks import EVERY

    for release in ("old", "new"):
        (tmp_path / release / "vllm/config").mkdir(parents=True)
        (tmp_path / release / "vllm/outputs.py").write_text(
            "class RequestOutput:\n    def add(self, next_output, aggregate): ...\n"
        )
    changed = tmp_path / "new/vllm/outputs.py"
    changed.write_text(changed.read_text().replace("aggregate", "merge"))
    command = [ROOT / "tools/drift", "vllm", tmp_path / "old", tmp_path / "new"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stderr
    assert f"{len(EVERY)} rows, {len(EVERY)} gone" in run.stdout  # these folders hold nothing else
    assert "vllm.outputs:RequestOutput.add: no aggregate" in run.stdout
