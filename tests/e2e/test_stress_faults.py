"""`multiverse stress` finds faults that this package once had, if they are put back (`put_back.py`)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from put_back import FAULT, FAULTS
from servers import FEW_BLOCKS
from test_stress import stressed

from multiverse.harness.server import HOSTS, Server, command, free_port, installed
from multiverse.models import TINY

HOST = next(host for host in HOSTS if installed(host))
MIX = ("--operate", "--mixed", "1", "--requests", "600", "--concurrency", "24", "--patience", "60", "--seed", "2")
SAID = {
    "vllm: none": "verdict: held",
    "sglang: none": "verdict: held",
    "vllm: widths of logprobs": "500",
    "vllm: reset of the cache": "the server is gone|reset",
    "sglang: parameters that are no object": "the server is gone|500",
    "sglang: pause that retracts": "the server is gone|/flush_cache: 400|/update_weights_from_disk: 400",
}
"""What the report has to say, by fault: an expression."""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `put_back` a plugin that hosts find, as if it were installed."""
    info = tmp_path / "put_back-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: put-back\nVersion: 0\n")
    groups = ("vllm.general_plugins", "sglang.srt.plugins")
    (info / "entry_points.txt").write_text("".join(f"[{group}]\nput_back = put_back:register\n" for group in groups))
    path = [str(tmp_path), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    monkeypatch.delenv("MULTIVERSE", raising=False)


@pytest.mark.long
@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("fault", [name for name in FAULTS if name.startswith(HOST)])
def test_a_fault_that_is_put_back_is_found_and_without_one_the_server_holds(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FAULT, fault)
    port = free_port()
    arguments = ["--served-model-name", "tiny", *(FEW_BLOCKS if HOST == "vllm" else ())]
    with Server(command(HOST, str(TINY), port, arguments), port) as server:
        server.wait(600)
        status = stressed(server.url, tmp_path / "stress.csv", *MIX)
    output = capsys.readouterr().out
    assert status == (0 if fault.endswith("none") else 1), output
    assert re.search(SAID[fault], output), output
