"""`multiverse bench --only drafts` on a vLLM that it starts: real drafts, counted by vLLM, at several lengths."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from multiverse.evaluation.bench.points import Point, races
from multiverse.evaluation.bench.race import Sizes
from multiverse.evaluation.bench.run import RESULTS, Plan, bench
from multiverse.models import TINY
from multiverse.serving.drafts import read_draft_lengths

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="SGLang's drafts need a GPU")

NGRAM = '{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 1, "prompt_lookup_max": 4}'


def test_each_draft_length_is_asked_for_and_its_tokens_are_counted(tmp_path: Path) -> None:
    os.environ.pop("MULTIVERSE", None)
    sizes = Sizes(repeats=1, tokens=[120], batches=[1, 3])
    bench(Plan(tmp_path, "test", None, "vllm", str(TINY), ["--speculative-config", NGRAM], ["drafts"], sizes), print)
    data = json.loads((tmp_path / RESULTS).read_text())
    points = [Point(**point) for point in data["points"]]
    assert [(race.case["rows"], list(race.ways)) for race in races(points, "drafts")] == [
        (rows, ["0", "2", "4"]) for rows in (1, 3)
    ]
    for race in races(points, "drafts"):
        brought = {int(way): point.more["tokens_per_step"][0] for way, point in race.ways.items()}
        if race.case["rows"] == 1:  # of several, some wait for their next question while others step
            assert 0.9 < brought[0] <= 1 < min(brought[2], brought[4])
            assert max(brought.values()) < 5
        shares = race.ways["4"].more["accepted"]
        assert len(shares) == 4
        assert 1 > shares[0] > shares[3] > 0
        assert race.ways["0"].more["accepted"] == []
    assert read_draft_lengths(data["drafts"]).rows[0] == 1
    assert data["drafts"] in (tmp_path / "bench.md").read_text()
