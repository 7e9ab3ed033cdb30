"""Installed is not active, and active refuses what it does not know."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="the table belongs to vLLM's adapter")

from multiverse.serving.activation import take_flag
from multiverse_vllm import hooks, install

UNTOUCHED = """
import os
os.environ.pop("MULTIVERSE", None)
from vllm.plugins import load_general_plugins
from vllm.config.scheduler import SchedulerConfig
from vllm.v1.worker.gpu_model_runner import GPUModelRunner
before = SchedulerConfig.get_scheduler_cls, GPUModelRunner._update_states, GPUModelRunner._preprocess
load_general_plugins()
assert before == (SchedulerConfig.get_scheduler_cls, GPUModelRunner._update_states, GPUModelRunner._preprocess)
"""


def test_without_the_switch_nothing_of_vllm_is_changed() -> None:
    subprocess.run([sys.executable, "-c", UNTOUCHED], check=True, capture_output=True)


@pytest.mark.parametrize("flag", [["--plugin", "multiverse"], ["--plugin=multiverse"]])
def test_the_flag_is_understood_and_taken_out_of_the_command_line(flag: list[str]) -> None:
    arguments = ["vllm", "serve", *flag, "model"]
    assert take_flag(arguments)
    assert arguments == ["vllm", "serve", "model"]
    assert not take_flag(arguments)
    assert not take_flag(["vllm", "serve", "--plugin", "other"])


def test_this_vllm_has_all_that_the_table_asks_for() -> None:
    assert hooks.check() == []


def test_a_vllm_of_another_kind_is_refused_with_the_whole_list(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *rest = hooks.HOOKS
    changed = (
        replace(first, target="vllm.config.scheduler:SchedulerConfig.gone"),
        replace(second, parameters=("unheard_of",)),
        *rest,
    )
    monkeypatch.setattr(hooks, "HOOKS", changed)
    monkeypatch.setattr(hooks, "host_version", lambda: "0.99.0")
    monkeypatch.setattr(install, "INSTALLED", "_not_installed_yet")
    with pytest.raises(hooks.UnsupportedHostError) as refused:
        install.install()
    for part in ("vLLM 0.99.0 was never tested", "SchedulerConfig.gone is not there", "has no unheard_of"):
        assert part in str(refused.value)


def test_a_changed_line_is_hinted_at_and_a_renamed_method_is_refused(tmp_path: Path) -> None:
    """In a copy of vLLM, whose files are links but for one."""
    found = find_spec("vllm")
    assert found is not None
    assert found.origin is not None
    shutil.copytree(Path(found.origin).parent, tmp_path / "vllm", copy_function=os.symlink)
    scheduler = tmp_path / "vllm/v1/core/sched/scheduler.py"
    code = scheduler.read_text()
    for before, after in [
        ("stopped = check_stop(request, self.max_model_len)", "stopped = check_stop(request, self.max_model_len - 1)"),
        ("def _preempt_request(", "def _preempt_one_request("),
    ]:
        assert code.count(before) == 1
        code = code.replace(before, after)
    scheduler.unlink()
    scheduler.write_text(code)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-W", "ignore", "-m", "multiverse", "check", "--json"]
    checked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert checked.returncode == 1
    (host,) = [host for host in json.loads(checked.stdout)["hosts"] if host["host"] == "vllm"]
    assert [hint for hint in host["hints"] if "_update_request_with_output, which is replaced, is not that of" in hint]
    assert len(host["hints"]) == 1
    (problem,) = host["problems"]
    assert "Scheduler._preempt_request is not there" in problem
