"""The notebook of the examples runs, and prints what is stored in it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="the notebook is written for vLLM")
import nbformat
from nbclient import NotebookClient

TOUR = Path(__file__).parents[2] / "examples" / "tour.ipynb"


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """What each code cell printed. Lines may come in any order where branches race for the next word."""
    texts = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            text = "".join(output.get("text", "") for output in cell.outputs)
            texts.append("\n".join(sorted(text.splitlines())) if "order" in cell.metadata.get("tags", ()) else text)
    return texts


def test_the_notebook_prints_what_is_stored_in_it(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIVERSE_URL", server)
    stored = nbformat.read(TOUR, as_version=4)
    nbformat.validate(stored)
    ran = nbformat.read(TOUR, as_version=4)
    NotebookClient(ran, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert printed(ran) == printed(stored)
    assert sum(map(bool, printed(stored))) >= 9
    assert (tmp_path / "answer.html").exists()
