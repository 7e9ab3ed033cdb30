"""The simulator: against the paper's latency fits, against arithmetic where there is some, and in what must hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from program import KNOWN, run

from multiverse import layout, parse_text
from multiverse.errors import RunError
from multiverse.evaluation.plan.machine import Machine, Model, Roofline, load
from multiverse.evaluation.plan.shapes import Shape, binned, shape_of, synthetic
from multiverse.evaluation.plan.sharing import sharing
from multiverse.evaluation.plan.simulate import Load, Served, simulate
from multiverse.evaluation.plan.study import Row, over_batch, over_rate, stops_paying

PAPER = {8192: (15.43, 0.60), 16384: (15.43, 1.06), 32768: (15.38, 2.14)}
"""Milliseconds per token at batch 1 by context length: a / #parallel + b (arXiv 2506.09991)."""


def roofline(machine: str = "paper", **changes: float) -> Roofline:
    found = load(Machine, "machines", machine).model_copy(update=changes)
    return Roofline(found, load(Model, "models", "qwen2.5-32b"))


def alone(shape: Shape, line: Roofline, cached: bool = True) -> Served:
    return simulate(binned([shape]), line, Load(np.array([1]), 1, cached=cached))


@pytest.mark.parametrize("length", PAPER)
@pytest.mark.parametrize("degree", [1.0, 1.2, 1.5, 2.0, 3.0])
def test_one_fitted_number_predicts_the_papers_latencies(length: int, degree: float) -> None:
    a, b = PAPER[length]
    shape = synthetic(600, degree, 8, prompt=length, rounds=1)
    milliseconds = 1000 * float(alone(shape, roofline()).per_token[0])
    assert milliseconds == pytest.approx(a / (600 / len(shape.width)) + b, rel=0.05)


def test_a_shape_counts_what_is_computed_and_read_at_every_step() -> None:
    problem = next(p for p in KNOWN.values() if p.kind == "nested")
    tree = parse_text(problem.parallel)
    shape, laid = shape_of(tree, prompt=7), layout(tree)
    assert shape.width.sum() == shape.tokens == len(tree)
    assert list(shape.width) == list(np.bincount(laid.positions))
    seen = sum(
        7 + sum(end - start for start, end in segment.visible()) + i
        for segment in laid.segments
        for i in range(segment.end - segment.start)
    )
    assert shape.read.sum() == seen


def test_a_shared_prefix_is_loaded_once_and_attended_to_by_everyone() -> None:
    line = roofline("h200")
    ((gain,),) = sharing(line, [16384], [16], own=512)
    weights, kv = line.model.parameters * line.model.weight_bytes, line.model.kv_per_token
    assert gain == pytest.approx((weights + kv * 16 * (16384 + 512)) / (weights + kv * (16384 + 16 * 512)), rel=1e-6)
    assert sharing(line, [16384], [1], own=512) == [[1.0]]
    (rows,) = sharing(line, [4096], [2, 8, 32], own=512)
    assert rows == sorted(rows)
    assert sharing(line, [10**7], [2], own=512) == [[None]], "it does not fit"
    (fast,) = sharing(roofline("h200", flops=1e9), [16384], [16], own=512)
    assert fast == [1.0], "who is bound by computing gains nothing: everyone attends to all of it"


def test_the_command_prints_sharing_by_width_and_prefix() -> None:
    status, told, _ = run_plan("--sharing", "--machine", "h200", "--batch", "1", "--json")
    data = json.loads(told)
    assert (status, len(data["batches"]["1"]), len(data["widths"])) == (0, len(data["prefixes"]), 6)
    status, told, _ = run_plan("--sharing", "--machine", "h200", "--batch", "1,8")
    assert (status, told.count("requests at once")) == (0, 2)


@pytest.mark.parametrize(("degree", "width"), [(1.0, 4), (1.2, 4), (2.0, 4), (3.9, 4), (1.5, 16)])
def test_a_synthetic_answer_has_the_degree_that_was_asked_for(degree: float, width: int) -> None:
    shape = synthetic(4000, degree, width, prompt=100)
    assert shape.tokens == pytest.approx(4000, rel=0.02)
    assert shape.tokens / len(shape.width) == pytest.approx(degree, rel=0.02)
    assert shape.read[-1] / shape.width[-1] <= 4100


def test_a_width_that_is_too_small_for_a_degree_is_refused() -> None:
    with pytest.raises(RunError, match="a parallel degree of 5"):
        synthetic(1000, 5, 4, 0)


def test_a_request_alone_takes_the_sum_of_its_steps() -> None:
    shape, line = synthetic(1000, 2.0, 4, prompt=500), roofline()
    exact = float(line.step(shape.width, shape.read).sum())
    assert alone(shape, line).latency[0, 0] == pytest.approx(exact, rel=0.01)
    assert alone(shape, line, cached=False).seconds[0] == pytest.approx(exact + line.prefill(500), rel=0.01)


def test_all_requests_are_served_and_none_before_it_came() -> None:
    shapes = binned([synthetic(n, 1.5, 4, 100) for n in (200, 500, 900)])
    served = simulate(shapes, roofline(), Load(np.array([1, 3, 8]), 40, np.array([0.1, 1.0, 5.0])))
    assert served.latency.shape == (3, 40)
    shortest = float(alone(synthetic(200, 1.5, 4, 100), roofline()).latency[0, 0])
    assert (served.latency > 0.9 * shortest).all()
    assert set(served.tokens.ravel()) <= set(shapes.tokens)


def test_rows_know_nothing_of_each_other() -> None:
    shapes = binned([synthetic(400, 1.5, 4, 100)])
    together = simulate(shapes, roofline(), Load(np.array([1, 4, 16]), 64))
    for row, slots in enumerate((1, 4, 16)):
        single = simulate(shapes, roofline(), Load(np.array([slots]), 64))
        assert together.throughput[row] == pytest.approx(float(single.throughput[0]))


def test_under_light_load_a_request_waits_for_nobody_and_under_heavy_load_it_does() -> None:
    shape, line = synthetic(400, 1.5, 4, 0), roofline()
    free = float(alone(shape, line).latency[0, 0])
    light, heavy = over_rate([shape], line, [0.001, 100.0], slots=2, requests=200)
    assert light.branching * shape.tokens / 1000 == pytest.approx(free, rel=0.02)
    assert heavy.branching > 5 * light.branching


def test_kv_that_does_not_fit_makes_requests_wait() -> None:
    shape = synthetic(8000, 1.5, 4, 100)
    small = roofline(memory=82e9)  # beside the weights, room for one answer and a half
    assert shape.tokens + 100 < small.kv_tokens < 4 * shape.tokens
    crowd, pair = (simulate(binned([shape]), small, Load(np.array([n]), 16)) for n in (16, 4))
    assert crowd.throughput[0] == pytest.approx(float(pair.throughput[0]), rel=0.3)
    with pytest.raises(RunError, match="needs more KV than paper holds"):
        alone(synthetic(80000, 1.5, 4, 100), small)
    with pytest.raises(RunError, match="does not fit into paper"):
        roofline(memory=60e9)


def test_branching_gains_its_degree_at_batch_1_and_ever_less_beside_others() -> None:
    rows = over_batch([synthetic(2000, 2.0, 4, 100)], roofline(), [1, 8, 64, 512])
    gains = [row.speedup for row in rows]
    assert gains[0] == pytest.approx(2.0, rel=0.05)
    assert gains == sorted(gains, reverse=True)
    assert all(row.throughput[0] >= row.throughput[1] for row in rows)


def test_it_stops_paying_where_no_later_row_pays() -> None:
    def row(at: float, speedup: float) -> Row:
        return Row(at, 1.2, 1, speedup, (1, 1), speedup, (1, 1))

    assert stops_paying([row(1, 1.2), row(2, 1.01), row(4, 1.06), row(8, 1.02)]) == 8
    assert stops_paying([row(1, 1.2)]) is None
    assert stops_paying([row(1, 1.0)]) == 1


def test_the_command_prints_a_table_and_where_it_stops_paying(tmp_path: Path) -> None:
    done = run_plan("--degree", "1.1,2", "--tokens", "800", "--batch", "1,4", "--machine", "b200", "-o", tmp_path)
    assert done[0] == 0
    assert "| degree 2 | 4 | 1.98 |" in done[1]
    assert "degree 2: branching gains 5% or more throughout" in done[1]
    assert set(json.loads((tmp_path / "plan.json").read_text())) == {"degree 1.1", "degree 2"}
    assert (tmp_path / "plan.png").exists()
    assert "degree 1.01: branching gains 5% or more nowhere" in run_plan("--degree", "1.01", "--batch", "1,2")[1]
    answers = tmp_path / "a.jsonl"
    answers.write_text("".join(json.dumps({"text": p.parallel}) + "\n" for p in KNOWN.values()))
    assert "| transcripts | 2 |" in run_plan("--transcripts", answers, "--batch", "2", "--machine", "b200")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--machine", "abacus"), "'abacus' is unknown: it must be one of a100"),
        (("--machine", "h100"), None),
        (("--batch", "0"), "--batch must be positive"),
        (("--transcripts", "lost.jsonl"), "lost.jsonl: can't be read"),
    ],
)
def test_a_mistake_is_named(arguments: tuple[str, ...], message: str | None) -> None:
    status, _, err = run_plan("--tokens", "400", "--batch", "1", *arguments)
    assert (status, message is None or message in err) == (0 if message is None else 2, True), err


def run_plan(*arguments: object) -> tuple[int, str, str]:
    done = run(*arguments, command="plan")
    return done.returncode, done.stdout, done.stderr
