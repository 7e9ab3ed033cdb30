"""The embedded model's problems as training data."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from multiverse import get_dialect
from multiverse.models.rows import main
from multiverse.models.task import is_held_out
from multiverse.training.schema import Example, read


def test_both_sides_of_the_split_are_examples_of_the_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rows", str(tmp_path), "--train", "40", "--held-out", "10"])
    main()
    for name, count, held_out in (("train", 40, False), ("held_out", 10, True)):
        found = [example for _, example in read(tmp_path / f"{name}.jsonl", get_dialect("multiverse"))]
        examples = [example for example in found if isinstance(example, Example)]
        assert len(examples) == len(found) == count
        assert {is_held_out(example.messages[0]["content"]) for example in examples} == {held_out}
        assert any(example.parallel != example.sequential for example in examples)
        for example in examples:
            assert example.text(parallel=True).endswith(f"Answer: {example.answer}")
