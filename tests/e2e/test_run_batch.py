"""`vllm run-batch`: the field of each line is taken, and a wrong one is that line's error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="it is vLLM's own command")

from servers import FEW_BLOCKS

from multiverse.harness.server import command
from multiverse.models import TINY

QUESTION = "A = sum 3 5 2 7 1; B = max 4 1 9 2 6. Find sum A B."
ASKED: dict[str, Any] = {"tree": {"return_tree": True}, "plain": {"enabled": False}, "wrong": {"widht": 1}}


def test_lines_of_a_batch_have_the_field(tmp_path: Path) -> None:
    lines = []
    for name, field in ASKED.items():
        body = {"model": str(TINY), "temperature": 0, "max_tokens": 300, "multiverse": field}
        body["messages"] = [{"role": "user", "content": QUESTION}]
        lines.append({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body})
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    served = command("vllm", str(TINY), 0, FEW_BLOCKS)
    host, _, model, *rest = served.arguments
    options = [option for option in rest if option not in ("--host", "127.0.0.1", "--port", "0")]
    files = ["-i", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl")]
    environment = {**served.full_environment(), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("MULTIVERSE", None)
    done = subprocess.run(
        [host, "run-batch", *files, "--model", model, *options],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answers = {line["custom_id"]: line for line in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())}
    tree, plain = (answers[name]["response"]["body"] for name in ("tree", "plain"))
    assert tree["usage"]["multiverse"]["branches"] == 2
    assert len(tree["choices"][0]["multiverse"]["tree"]) == 3
    assert "multiverse" not in plain["usage"]
    assert "widht" in json.dumps(answers["wrong"]["error"])
