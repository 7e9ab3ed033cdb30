"""Shapes, steps, ratios and tables of the benchmark, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_server import WAYS, WORDS
from program import KNOWN

from multiverse import Status, layout, parse_text, to_transcript
from multiverse.decoding.shaped import ShapedController, sampled_tokens
from multiverse.errors import RunError
from multiverse.evaluation.bench.facts import facts
from multiverse.evaluation.bench.points import Point, ahead_from, ratio
from multiverse.evaluation.bench.report import write_report
from multiverse.evaluation.bench.workloads import of_tokens, shape_in, workload
from multiverse.evaluation.plan.shapes import Shape, shape_of


def test_the_shape_of_a_recorded_answer_is_that_of_its_tree() -> None:
    problem = next(p for p in KNOWN.values() if p.kind == "nested")
    tree = parse_text(problem.parallel)
    shape = shape_in(tree)
    assert sampled_tokens(shape) == len(tree)
    outer, *_ = tree.blocks
    assert len(shape[1]) == len(outer.paths)
    assert [len(branch) > 1 for branch in shape[1]] == [bool(path.blocks) for path in outer.paths]
    half = shape_in(tree, 0.5)
    assert sampled_tokens(half) == pytest.approx(len(tree) / 2, rel=0.2)


@pytest.mark.parametrize("shape", [[7], [4, [[5], [9]], 3], [2, [[3], [1, [[2], [2], [2]], 4]], 5, [[1], [1]], 1]])
def test_steps_are_those_of_the_layout_without_the_goals(shape: Any) -> None:
    controller = ShapedController(WORDS.binding, shape)
    while controller.finish_reason is None:
        for strand in [s for s in controller.root.walk() if s.status is Status.RUNNING]:
            controller.accept(strand, 20)
    tree, load = to_transcript(controller), workload("", shape, WORDS.binding, 64)
    assert load.tokens + load.goals == len(tree) == controller.ledger.used
    assert load.branches == sum(len(found.paths) for found in tree.walk())
    inside = [found for found in tree.walk() if found.depth > 1]
    ends = 3 * len(WORDS.binding.last_separator) * len(tree.blocks)  # in the layout they overlap
    assert load.critical_path == pytest.approx(layout(tree).critical_path() - load.goals, abs=ends + 30 * len(inside))
    assert load.steps.read[-1] == 64 + len(tree) - 1


@pytest.mark.parametrize("width", [1, 2, 8])
def test_an_answer_has_nearly_the_tokens_that_were_asked_for(width: int) -> None:
    load = of_tokens(400, width, WORDS.binding, 30)
    assert 400 - width < load.tokens <= 400
    assert load.steps.tokens / len(load.steps.width) == pytest.approx(load.bound)
    with pytest.raises(RunError, match="too few for 40 branches"):
        of_tokens(60, 40, WORDS.binding, 30)


def test_a_shape_in_short_is_the_same_shape() -> None:
    problem = next(p for p in KNOWN.values() if p.kind == "nested")
    shape = shape_of(parse_text(problem.parallel), 9)
    again = Shape.from_runs(shape.runs(), 9)
    assert np.array_equal(again.width, shape.width)
    assert np.array_equal(again.read, shape.read)
    assert len(shape.runs()) < len(shape.width) / 2


def test_a_splice_is_ahead_from_where_all_longer_ones_are() -> None:
    assert ahead_from([8, 16, 32, 64], [1.1, 0.9, 1.01, 1.2]) == 32
    assert ahead_from([64, 8], [1.0, 2.0]) is None
    assert ahead_from([8, 64], [1.2, 1.1]) == 8


def test_ratios_are_taken_repeat_by_repeat() -> None:
    a, b = (Point("x", way, {}, 1, 0, 10, 5, seconds) for way, seconds in (("a", [2.0, 6.0]), ("b", [1.0, 2.0])))
    assert (ratio(a, b).median, ratio(a, b).least, ratio(a, b).most) == (2.5, 2.0, 3.0)
    assert a.per_token.median == 400.0


def made(experiment: str, way: str, case: dict[str, Any], steps: int, seconds: list[float], **more: Any) -> Point:
    """A point of an answer of 100 tokens in so many steps."""
    return Point(experiment, way, case, case.get("batch", 1), 64, 100, steps, seconds, [], more)


def about() -> dict[str, Any]:
    """What a report says before its tables."""
    told = {"machine": facts(), "model": {"name": "m"}, "server": {}, "command": "x", "sizes": {"repeats": 3}}
    return {**told, "clock": "wall-clock time"}


def test_a_block_is_held_against_as_many_requests_as_it_has_branches(tmp_path: Path) -> None:
    """Half of the bound of 4 is kept, where four requests at once keep 0.8 of it."""
    case = {"width": 4}
    seconds = {"splice": (25, [2.0]), "sequential": (100, [4.0]), "one": (100, [0.8]), "independent": (100, [1.0])}
    known = [made("independent", way, case, steps, taken) for way, (steps, taken) in seconds.items()]
    write_report(tmp_path, about(), known, {})
    assert "| 4 | 4.00 | 50% | 80% | 0.62 |" in (tmp_path / "bench.md").read_text()


def test_tables_show_gains_and_how_much_of_the_bound_they_are(tmp_path: Path) -> None:
    points = [
        made("degree", "sequential", {"tokens": 100, "width": 1}, 100, [2.0, 4.0, 4.0]),
        made("degree", "splice", {"tokens": 100, "width": 4}, 50, [1.0, 2.5, 4.0]),
        made("batch", "splice", {"batch": 8}, 50, [1.0, 2.0]),
        made("batch", "sequential", {"batch": 8}, 100, [1.5, 3.5]),
        *(made("ways", way, {"width": 4, "length": 9}, steps, [seconds]) for way, steps, seconds in WAYS),
        made("turns", "splice", {"width": 4}, 50, [1.0], fork_seconds=0.03, join_seconds=0.01),
    ]
    write_report(tmp_path, about(), points, {"plain": "no second server"})
    text = (tmp_path / "bench.md").read_text()
    assert "| 100 | 4 | 2.00 | 25.00 (10.00 to 40.00) | 1.60 | 80% |" in text
    assert "| 8 | 533 | 320 | 1.62 (1.50 to 1.75) | 81% |" in text
    assert (
        "| 4 x 9 | 2.00 | 3.00 (3.00 to 3.00) | 2.50 (2.50 to 2.50) | 2.00 (2.00 to 2.00) | 1.50 (1.50 to 1.50)" in text
    )
    assert "| 75% | 1.25 (1.25 to 1.25) |" in text
    assert "With 4 branches the splice is ahead from 9 tokens on" in text
    assert "| 4 | 20.0 | 30.0 (1.50) | 10.0 (0.50) |" in text
    assert "plain: left out. no second server" in text
