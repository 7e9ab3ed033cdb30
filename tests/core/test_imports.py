"""The core is engine-neutral: importing it, or its commands, brings in neither torch nor a host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("module", ["multiverse", "multiverse.cli", "multiverse.structure.tags"])
def test_nothing_heavy_is_imported(module: str) -> None:
    heavy = ["torch", "transformers", "sglang", "vllm", "numpy", "tokenizers", "openai", "pydantic"]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "[]", run.stderr


def test_the_public_names_are_there_and_documented() -> None:
    import multiverse

    for name in multiverse.__all__:
        assert getattr(multiverse, name).__doc__ or name in ("Action", "registry")
