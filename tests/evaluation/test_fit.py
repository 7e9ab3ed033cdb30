"""`multiverse plan --fit`: a machine from what `multiverse bench` measured, tried on what it was not fitted to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import run

from multiverse.errors import RunError
from multiverse.evaluation.bench.facts import model_figures
from multiverse.evaluation.bench.hosts import words_of
from multiverse.evaluation.bench.points import Point
from multiverse.evaluation.bench.workloads import block, workload
from multiverse.evaluation.plan.fit import fit, predict, read_bench
from multiverse.evaluation.plan.machine import Machine
from multiverse.models import TINY

RECORDED = Path(__file__).parents[2] / "benchmarks" / "results"
WORDS = words_of(str(TINY))


def recorded_bench(path: Path, noise: float = 0.0) -> Machine:
    """Write results as a known machine would give them; returns that machine."""
    rng, found = np.random.default_rng(5), []
    whole = {"memory_efficiency": 1.0, "compute_efficiency": 1.0}
    costs = {"overhead": 0.002, "per_sequence": 0.0003}
    machine = Machine(name="known", bandwidth=8e9, flops=4e11, memory=2e10, max_sequences=256, **whole, **costs)
    model = model_figures(str(TINY), None)
    assert model is not None
    model |= {"parameters": 5e7, "weight_bytes": 2.0}
    write = {"server": {}, "machine": {"memory": 2e10}, "model": model}
    path.write_text(
        json.dumps(
            {
                **write,
                "points": [
                    _blank(width, length, batch) for width in (2, 4, 16) for length in (16, 64) for batch in (1, 8, 64)
                ],
            }
        )
    )
    bench = read_bench(path)
    data = json.loads(path.read_text())
    for point, measured in zip(data["points"], bench.points, strict=True):
        point["seconds"] = [predict(machine, bench.model, measured) * (1 + noise * rng.standard_normal())]
        found.append(point)
    path.write_text(json.dumps(data | {"points": found}))
    return machine


def _blank(width: int, length: int, batch: int) -> dict[str, Any]:
    load = workload("", block(width, length), WORDS.binding, 64)
    case = {"width": width, "length": length, "batch": batch}
    return Point(
        "batch", "splice", case, batch, 64, load.tokens, load.critical_path, [1.0], load.steps.runs()
    ).to_dict()


def test_a_known_machine_is_found_again_and_predicts_what_it_was_not_fitted_to(tmp_path: Path) -> None:
    machine = recorded_bench(tmp_path / "bench.json", noise=0.01)
    bench = read_bench(tmp_path / "bench.json")
    found = fit(bench, *bench.halves())
    assert found.median_error < 0.03
    assert found.machine.overhead + found.machine.per_sequence == pytest.approx(
        machine.overhead + machine.per_sequence, rel=0.5
    )
    assert len(found.tried) == len(bench.points) // 2


def test_the_command_writes_a_machine_to_plan_with(tmp_path: Path) -> None:
    recorded_bench(tmp_path / "bench.json")
    done = run("--fit", tmp_path / "bench.json", "-o", tmp_path, command="plan")
    assert done.returncode == 0, done.stderr
    assert "Median error over the other 9:" in done.stdout
    files = ("--machine", tmp_path / "machine.yaml", "--model", tmp_path / "model.yaml")
    done = run(*files, "--degree", "2", "--tokens", "400", "--batch", "1,8", command="plan")
    assert (done.returncode, "| degree 2 | 8 |" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not what `multiverse bench` writes"),
        ("[]", "is not what `multiverse bench` writes"),
        ('{"points": [], "server": {}, "machine": {"memory": 1}, "model": {}}', "has 0 points to fit to, 8 are needed"),
    ],
)
def test_other_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(RunError, match=message):
        read_bench(tmp_path / "x.json")
    with pytest.raises(RunError, match="can't be read"):
        read_bench(tmp_path / "lost.json")


@pytest.mark.parametrize("host", ["vllm", "sglang"])
def test_half_of_what_was_measured_on_a_real_server_predicts_the_other_half(host: str) -> None:
    """The results of `make bench-server`, whichever half is fitted."""
    bench = read_bench(RECORDED / f"bench-{host}" / "bench.json")
    one, other = bench.halves()
    assert fit(bench, one, other).median_error < 0.15
    assert fit(bench, other, one).median_error < 0.15
