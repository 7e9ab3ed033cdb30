"""`multiverse bench` starts a real server with the plugin, which gives answers of exactly the shapes that are asked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from multiverse.evaluation.bench.points import Point, races
from multiverse.evaluation.bench.race import Sizes
from multiverse.evaluation.bench.run import RESULTS, Plan, bench
from multiverse.models import TINY


@pytest.fixture
def transcripts(tmp_path: Path) -> Path:
    """A nested answer, and one with two blocks, one after the other."""
    branch, end = "<Path>\n{}: x y z w\n{}</Path>\n", "<Conclusion>\nit follows\n</Conclusion>\n</Parallel>\n"
    outlines = "".join(f"<Outline>\n{i}: a\n</Outline>\n" for i in (1, 2))

    def block(inside: str = "") -> str:
        return f"<Parallel>\n<Goal>\n{outlines}</Goal>\n{branch.format(1, inside)}{branch.format(2, '')}{end}"

    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in (block(block()), block() + "so " + block())))
    return path


def test_shapes_are_played_and_raced_on_a_server_of_its_own(host: str, tmp_path: Path, transcripts: Path) -> None:
    os.environ.pop("MULTIVERSE", None)
    sizes = Sizes(
        repeats=1, tokens=[60], widths=[2], batches=[1, 4], lengths=[8], transcripts=[str(transcripts)], answers=2
    )
    names = ["degree", "batch", "ways", "independent", "turns", "replay"]
    results = bench(Plan(tmp_path, "test", None, host, str(TINY), [], names, sizes), print)
    assert results.left_out == {}  # each answer was compared with the shape that was asked for
    points = [Point(**point) for point in json.loads((tmp_path / RESULTS).read_text())["points"]]
    assert [point.way for point in races(points, "ways")[0].ways.values()] == ["splice", "client", "sequential"]
    nested, flat = races(points, "replay")
    assert nested.ways["splice"].bound > 1
    assert len(flat.ways["splice"].runs) > len(nested.ways["splice"].runs) // 2
    assert all(min(point.seconds) > 0 for point in points)
    turns = [point for point in points if point.experiment == "turns"]
    assert all({"fork_seconds", "join_seconds"} <= point.more.keys() for point in turns)
