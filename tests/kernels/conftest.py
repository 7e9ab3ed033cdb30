"""Tests of kernels, in a process of their own: Triton's interpreter runs them on CPU tensors, as no GPU is here.

Triton stands beside the environments of the hosts, not in them (`tools/setup sglang-tests`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

TRITON = Path(sys.prefix, "triton")
if TRITON.is_dir():
    os.environ["TRITON_INTERPRET"] = "1"
    sys.path.insert(0, str(TRITON))
    import torch

    torch.set_num_threads(1)
else:
    collect_ignore_glob = ["test_*.py"]


def pytest_report_header() -> str | None:
    return None if TRITON.is_dir() else "tests/kernels: Triton is not beside this environment, nothing to run"


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if not TRITON.is_dir() and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK
