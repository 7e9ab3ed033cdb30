"""SGLang configured for what can't work with blocks: refused at start, with the flag."""

from __future__ import annotations

import subprocess
import sys

import pytest

from multiverse.models import TINY

pytest.importorskip("sglang", reason="these are SGLang's own settings")


def test_what_can_not_work_is_refused_before_anything_is_loaded_with_its_flag() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "sglang.launch_server", "--plugin", "multiverse"]
    command += ["--model-path", str(TINY), "--device", "cpu", "--attention-backend", "torch_native"]
    command += ["--pp-size", "2", "--tokenizer-worker-num", "2", "--skip-tokenizer-init"]
    command += ["--grpc-port", "50051", "--kv-events-config", '{"publisher": "null"}']
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("multiverse does not work with")]
    for flag in ("--pp-size", "--tokenizer-worker-num", "--skip-tokenizer-init", "--grpc-port", "--kv-events-config"):
        assert flag in line
    assert "--speculative-algorithm" not in line
