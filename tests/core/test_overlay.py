"""`tools/overlay`: another release's Python files, the installed one's compiled files, and a version of its own."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with a folder of environments of its own."""
    monkeypatch.syspath_prepend(str(TOOLS))
    loader = SourceFileLoader("overlay", str(TOOLS / "overlay"))
    spec = spec_from_loader("overlay", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    monkeypatch.setattr(sys.modules["environment"], "VENVS", tmp_path)
    monkeypatch.setattr(module, "VENVS", tmp_path)
    (tmp_path / "releases/sglang-9.9.9/sglang").mkdir(parents=True)
    (tmp_path / "releases/sglang-9.9.9/sglang/__init__.py").write_text("NEW = True\n")
    return module


def test_an_overlay_has_the_other_releases_code_and_the_installed_ones_compiled_files(
    overlay: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = tmp_path / "sglang/lib/python3.11/site-packages/sglang"
    (installed / "kernels").mkdir(parents=True)
    (installed / "__init__.py").write_text("NEW = False\n")
    (installed / "kernels/fast.abi3.so").write_text("compiled")
    assert overlay.main(["sglang", "9.9.9"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    found = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}
    information = found.pop("sglang-9.9.9.dist-info/METADATA")
    assert found == {"sglang/__init__.py": "NEW = True\n", "sglang/kernels/fast.abi3.so": "compiled"}
    assert "Version: 9.9.9\n" in information


def test_without_the_host_it_says_what_to_set_up(overlay: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert overlay.main(["sglang", "9.9.9"]) == 1
    assert "tools/setup sglang" in capsys.readouterr().err
