"""The examples for authors of `sgl.function` programs run, and a model-driven one has its tree."""

from __future__ import annotations

import runpy
from pathlib import Path
from random import Random
from typing import Any

import pytest
from parallel_encoding import sgl

from multiverse.models.task import generate
from multiverse.models.tokenizer import turn

programs = pytest.importorskip("multiverse_sglang.programs")

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_the_examples_run(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "sglang_program_driven.py"))["main"](server, "How many hens does Ben have now?")
    assert "Of a prompt of" in capsys.readouterr().out
    problem = generate(Random(21), "flat", held_out=True)
    runpy.run_path(str(EXAMPLES / "sglang_model_driven.py"))["main"](server, [turn(problem)])
    assert f"branch {problem.width}:" in capsys.readouterr().out


def test_a_model_driven_program_has_its_tree(backend: Any) -> None:
    problem = generate(Random(21), "flat", held_out=True)

    @sgl.function  # type: ignore[untyped-decorator]
    def solve(s: Any, question: str) -> None:
        s += question + sgl.gen("answer", max_tokens=900, temperature=0)

    state = solve.run(turn(problem), backend=backend)
    (block,) = programs.transcript(state, "answer").blocks
    record = programs.record(state, "answer")
    assert len(block.paths) == problem.width
    assert record is not None
    assert record["branches"] == problem.width
