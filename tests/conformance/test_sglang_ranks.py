"""SGLang with tensor parallelism: every rank forks, joins and names its runs by tokens and arrival order only."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from torch.distributed import HashStore

from multiverse import Limits
from multiverse.errors import UnsupportedHostError
from multiverse.models import TINY
from multiverse.models.task import Problem
from multiverse.models.tokenizer import turn
from multiverse.oracle import generate as reference

pytest.importorskip("sglang", reason="vLLM's ranks are in tests/vllm_workers")

from multiverse_sglang.scheduler.ranks import compare

ENGINE = """
import json, math, os, sys, time
from types import SimpleNamespace
import multiverse_sglang
from multiverse.serving.admission.pace import Pace
from multiverse_sglang.scheduler import clock

hurry = 1 + os.getpid() % 7 / 7  # no two ranks have the same clock
clock.time = SimpleNamespace(monotonic=lambda: time.monotonic() * hurry)
Pace.per_token = math.inf  # what can't be held in time is tried all the same

def main():
    multiverse_sglang.enable()
    import sglang

    model, prompts, fields = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    engine = sglang.Engine(model_path=model, tp_size=2, device="cpu", attention_backend="multiverse", dtype="float32",
                           page_size=1, context_length=1025, max_total_tokens=8192, max_running_requests=32,
                           log_level="info")
    sampling = [{"temperature": 0, "max_new_tokens": 800, "custom_params": {"multiverse": field}} for field in fields]
    outputs = engine.generate(input_ids=prompts, sampling_params=sampling)
    records = [out["meta_info"].get("multiverse") or {"branches": 0, "tree": []} for out in outputs]
    held = [sum(strand.get("held", 0) for strand in record["tree"]) for record in records]
    found = [[out["output_ids"], record["branches"], own] for out, record, own in zip(outputs, records, held)]
    engine.shutdown()
    print("FOUND", json.dumps(found))

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("admission", ["eager", "slack"])
def test_two_ranks_give_the_oracles_answers(
    tmp_path: Path, tiny: tuple[Any, Any], problems: list[Problem], admission: str
) -> None:
    """Also if branches are held by what is promised, and the clocks of the ranks disagree: they would hang if they
    held others."""
    model, tokenizer = tiny
    prompts = [list(tokenizer.encode(turn(problem))) for problem in problems[:6]]
    slos = [{"slo": {"tpot_ms": tpot}} if admission == "slack" else {} for tpot in (1, 10, 20, 30, 50, 100)]
    fields = [{"return_tree": True} | slo for slo in slos]
    script = tmp_path / "engine.py"  # a file, as SGLang starts processes that import it
    script.write_text(ENGINE)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SGLANG_CPU_OMP_THREADS_BIND": "0|0"}
    environment |= {"MULTIVERSE_ADMISSION": admission}
    command = [sys.executable, "-W", "ignore", str(script), str(TINY), json.dumps(prompts), json.dumps(fields)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    lines = [line for line in result.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, result.stderr[-4000:]
    for rank in (0, 1):  # each has rehearsed before, in step with the other
        assert re.search(rf"TP{rank}\] multiverse: fork and splice rehearsed", result.stdout + result.stderr)
    found = json.loads(lines[0].removeprefix("FOUND "))
    expected = reference(model, tokenizer, prompts, limits=Limits(max_tokens=800))
    assert [ids for ids, _, _ in found] == [answer.ids for answer in expected]
    assert sum(branches > 0 for _, branches, _ in found) > 2
    assert any(held for _, _, held in found) is (admission == "slack")


def compared(*options: str | None) -> list[str]:
    """What the ranks with these options say at start; one without the plugin, `None`, says nothing."""
    store, said = HashStore(), []

    def start(rank: int) -> None:
        try:
            compare(store, rank, len(options), str(options[rank]), timedelta(seconds=1))
        except UnsupportedHostError as refusal:
            said.append(str(refusal))

    ranks = [Thread(target=start, args=(rank,)) for rank, own in enumerate(options) if own is not None]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join()
    return said


def test_a_rank_without_the_plugin_or_with_other_options_ends_the_start_of_the_others() -> None:
    assert compared("same", "same", "same") == []
    absent = compared("same", "same", None)
    assert len(absent) == 2
    assert all("rank 2 of 3 runs without multiverse" in refusal for refusal in absent)
    other = compared("same", "other")
    assert len(other) == 2
    assert all("has other multiverse options" in refusal for refusal in other)
