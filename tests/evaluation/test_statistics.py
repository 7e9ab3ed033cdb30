"""Intervals cover what they say, the paired test is McNemar's, curves and comparisons count what they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiverse.errors import RunError
from multiverse.evaluation.budget import curves
from multiverse.evaluation.compare import compare
from multiverse.evaluation.intervals import mean_interval, paired_p, share_interval, wilson
from multiverse.evaluation.results import Results, read_results, write_results
from multiverse.evaluation.samples import Sample


def sample(id_: int, correct: bool, tokens: int = 100, critical: int = 50, seed: int = 0, **more: Any) -> Sample:
    verdict = "correct" if correct else "wrong"
    shape = {"blocks": 1, "max_width": 2, "depth": 1, "well_formed": True, "violation": None}
    return Sample("t", str(id_), seed, verdict, "1", "1", "stop", tokens, critical, "server", **shape | more)


def results(name: str, samples: list[Sample], **about: Any) -> Results:
    return Results(name, about, samples)


def test_wilsons_interval_is_the_textbook_one() -> None:
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(1.0, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)


def test_samples_of_one_problem_count_as_much_as_they_differ() -> None:
    alike = share_interval([[True] * 8] * 10 + [[False] * 8] * 10)
    assert alike == pytest.approx((0.5, *wilson(0.5, 20)), abs=0.01)  # eight times the same says nothing new
    mixed = share_interval([[True, False] * 4] * 20)
    assert mixed[2] - mixed[1] == pytest.approx(wilson(0.5, 20)[1] - wilson(0.5, 20)[0])
    rng = np.random.default_rng(1)
    free = share_interval((rng.random((200, 8)) < 0.5).tolist())
    assert free[2] - free[1] < 0.6 * (wilson(0.5, 200)[1] - wilson(0.5, 200)[0])


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng, hits = np.random.default_rng(2), 0
    for _ in range(400):
        ability = rng.beta(2, 2, 40)
        _, low, high = share_interval((rng.random((40, 4)) < ability[:, None]).tolist())
        hits += low <= 0.5 <= high
    assert 0.91 < hits / 400 < 0.99


def test_the_paired_test_is_mcnemars() -> None:
    assert paired_p([1.0] * 9 + [-1.0] + [0.0] * 50) == pytest.approx(0.0215, abs=0.005)
    assert paired_p([1.0, -1.0, 0.0]) == 1.0
    assert paired_p([0.0, 0.0]) == 1.0


def test_the_bootstrap_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(3).normal(1.0, 2.0, 400)
    half = 1.96 * values.std(ddof=1) / 20
    assert mean_interval(list(values)) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_runs_are_compared_on_the_problems_both_have() -> None:
    first = results("a", [sample(i, i < 5, tokens=100, critical=100) for i in range(10)])
    second = results("b", [sample(i, i < 8, tokens=120, critical=60) for i in range(12)])
    (row,) = compare([first, second])
    assert (row.problems, row.accuracy, row.better, row.worse) == (10, (0.5, 0.8), 3, 0)
    assert (row.difference, row.tokens, row.critical_path) == (pytest.approx(0.3), 1.2, 0.6)
    assert row.low < 0.3 < row.high
    assert row.p == pytest.approx(0.25, abs=0.02)
    assert row.parallel_degree == (1.0, 2.0)
    assert row.seconds is None


def test_the_parallel_degree_of_a_run_is_all_tokens_over_all_critical_paths() -> None:
    first = results("a", [sample(0, True, tokens=100, critical=50), sample(1, True, tokens=300, critical=300)])
    (row,) = compare([first, first])
    assert row.parallel_degree == (pytest.approx(400 / 350),) * 2


def test_runs_on_other_problems_are_not_compared() -> None:
    runs = [results(name, [sample(0, True)], tasks={"t": {"sha256": name}}) for name in ("a", "b")]
    with pytest.raises(RunError, match="different problems"):
        compare(runs)
    with pytest.raises(RunError, match="no problem in common"):
        compare([results("a", [sample(0, True)]), results("b", [sample(1, True)])])


def test_a_budget_counts_answers_that_ended_within_it_and_are_right() -> None:
    used = (10, 20, 40, 80)
    run = results("a", [sample(i, i != 1, tokens=2 * n, critical=n) for i, n in enumerate(used)])
    points = curves([run])
    for kind, factor in (("critical_path", 1), ("tokens", 2)):
        curve = [point for point in points if point.kind == kind]
        assert [curve[0].budget, curve[-1].budget] == [10 * factor, 80 * factor]
        for point in curve:
            right = sum(n * factor <= point.budget for i, n in enumerate(used) if i != 1)
            assert point.accuracy == right / 4
            assert point.low <= point.accuracy <= point.high


def test_within_a_budget_too_it_is_problems_that_are_counted() -> None:
    often, once = [sample(0, True, seed=seed) for seed in range(3)], sample(1, False)
    assert {point.accuracy for point in curves([results("a", [*often, once])])} == {0.5}


def test_results_survive_writing_and_damage_is_told(tmp_path: Path) -> None:
    run = results("a", [sample(i, True, fallbacks={"too_wide": 2}) for i in range(3)], model="m")
    write_results(tmp_path, run)
    assert read_results(tmp_path) == run
    text = (tmp_path / "samples.jsonl").read_text()
    (tmp_path / "samples.jsonl").write_text(text[:-30])
    with pytest.raises(RunError, match=r"samples.jsonl:3: is damaged.*nothing is asked twice"):
        read_results(tmp_path)
    with pytest.raises(RunError, match=r"is .*lost the output of a run"):
        read_results(tmp_path / "lost")
