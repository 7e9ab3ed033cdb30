"""Files that `multiverse view` can't draw: one line says what is wrong, and no page is left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from answers import nested, record

from multiverse.cli import main

GOOD = record(nested())["tree"]


def changed(number: int, **fields: Any) -> dict[str, Any]:
    """A good record with some fields of one strand changed; `...` takes a field away."""
    tree = [dict(strand) for strand in GOOD]
    tree[number] = {name: value for name, value in {**tree[number], **fields}.items() if value is not ...}
    return {"tree": tree}


def chain(levels: int) -> dict[str, Any]:
    """Strands inside each other."""
    strand = {"label": "1", "positions": [0], "forks": [0], "finish_reason": None, "fallbacks": []}
    return {"tree": [{**strand, "key": [0, 0] * level} for level in range(levels)]}


TREES: dict[str, tuple[Any, str]] = {
    "no tree": ({"tree": 5}, "tree must be a list of strands, got 5"),
    "no strand": ({"tree": []}, "tree must be a list of strands, got []"),
    "a strand that is none": ({"tree": [5]}, "tree[0] must be a strand, got 5"),
    "no root": ({"tree": GOOD[1:]}, "tree[0].key must come once, behind its parent's, got [0, 0]"),
    "no parent": ({"tree": [GOOD[0], GOOD[3]]}, "tree[1].key must come once, behind its parent's"),
    "twice": ({"tree": [*GOOD, GOOD[1]]}, "must come once"),
    "no key": (changed(1, key=...), "tree[1].key must be a list of integers"),
    "half a key": (changed(1, key=[0]), "tree[1].key must be pairs of numbers"),
    "no positions": (changed(1, positions=...), "tree[1].positions must be a list of integers"),
    "positions that are none": (changed(1, positions=["x"]), "tree[1].positions must be a list of integers"),
    "a huge position": (changed(1, positions=[10**400]), "tree[1].positions must be a list of integers"),
    "forks behind the end": (changed(0, forks=[10**6]), "tree[0].forks must be a list of integers from 0 to"),
    "forks in disorder": (changed(0, forks=[9, 3]), "tree[0].forks must be in order"),
    "a text too few": (changed(0, texts=["x"]), "tree[0].texts must be a text more than forks"),
    "texts that are none": (changed(1, texts=[5]), "tree[1].texts must be"),
    "no label": (changed(1, label=...), "tree[1].label must be a text"),
    "a wrong end": (changed(1, finish_reason=[]), "tree[1].finish_reason must be a text or null"),
    "no fallbacks": (changed(1, fallbacks=...), "tree[1].fallbacks must be pairs"),
    "fallbacks that are none": (changed(1, fallbacks=[[1]]), "tree[1].fallbacks must be pairs"),
    "a wrong time": (changed(1, started="soon"), "tree[1].started must be seconds or null"),
    "half a character": (changed(1, texts=["\ud800"]), "half a character"),
    "3,000 strands inside each other": (chain(3000), "at most 64"),
    "a megabyte": (changed(1, label=["x" * 1_000_000]), "tree[1].label must be a text"),
    "no choices": ({"choices": 5}, "answer"),
    "choices that are none": ({"choices": [5]}, "answer"),
    "a choice without an answer": ({"choices": [{"multiverse": 5}]}, "answer"),
    "a choice without a tree": ({"choices": [{"multiverse": {"tree": 5}}]}, "tree must be a list of strands"),
}
DEEP = {
    "a deep list": "[" * 100_000,
    "a deep object": '{"tree":' * 100_000,
    "a deep choice": '{"choices": [' * 2_000 + "]}" * 2_000,
}
FILES = {name: (json.dumps(value), says) for name, (value, says) in TREES.items()}
FILES |= {name: (text, "nested too deeply") for name, text in DEEP.items()}


@pytest.mark.parametrize("name", FILES)
def test_an_odd_file_is_refused_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, says = FILES[name]
    file, page = tmp_path / "answer.json", tmp_path / "page.html"
    file.write_text(text)
    assert main(["view", str(file), "-o", str(page)]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert "answer.json" in told or name == "half a character"
    assert all(len(line) < 300 for line in told.splitlines())
    assert "Traceback" not in told
    assert not page.exists()


def test_as_many_levels_as_can_be_drawn_are_drawn(tmp_path: Path) -> None:
    (tmp_path / "answer.json").write_text(json.dumps(chain(65)))
    assert main(["view", str(tmp_path / "answer.json"), "-o", str(tmp_path / "page.html")]) == 0


def test_text_with_blocks_nested_without_end_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = "<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n<Outline>\n2: b\n</Outline>\n</Goal>\n<Path>\n1: "
    (tmp_path / "answer.txt").write_text(opened * 2000)
    assert main(["view", str(tmp_path / "answer.txt"), "-o", str(tmp_path / "page.html")]) == 2
    assert "nested" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
