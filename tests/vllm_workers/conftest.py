"""Tests of what belongs to vLLM's workers only. Run them in a process of their own: `pytest tests/vllm_workers`.

vLLM's V2 model runner and its Triton cache writers need Triton, which has no driver for this CPU. Triton's own
interpreter runs their kernels, unchanged, on CPU tensors; it is announced to vLLM as a driver here, before vLLM looks.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

if find_spec("vllm") is None:
    collect_ignore_glob = ["test_*.py"]
elif os.environ.get("MULTIVERSE_TEST_DEVICE", "cpu") == "cpu":
    assert "vllm" not in sys.modules, "vLLM was imported without Triton: run tests/vllm_workers in a process of its own"
    os.environ |= {"TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"}
    TRITON = Path(sys.prefix, "triton")
    assert TRITON.is_dir(), f"{TRITON} is missing: tools/setup vllm-tests"
    sys.path.insert(0, str(TRITON))
    import triton.backends

    driver = SimpleNamespace(is_active=lambda: True)
    triton.backends.backends["cpu"] = SimpleNamespace(driver=driver)  # type: ignore[assignment]
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))  # answer, vllm_host

    import numpy as np
    import torch
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    splat = InterpreterBuilder.create_splat

    def splat_conditions(self: InterpreterBuilder, shape: Any, scalar: TensorHandle) -> TensorHandle:
        """A scalar condition stays one where it meets a mask (findings/triton_interpreter_scalar_in_a_mask.sh)."""
        if scalar.data.dtype == bool:
            return TensorHandle(np.full(shape.shape, scalar.data), tl.int1)
        return splat(self, shape, scalar)

    InterpreterBuilder.create_splat = splat_conditions

    torch.set_num_threads(1)


def pytest_report_header() -> str | None:
    return "tests/vllm_workers: vllm is not installed here, nothing to run" if find_spec("vllm") is None else None


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if find_spec("vllm") is None and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK
