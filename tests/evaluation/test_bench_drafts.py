"""`multiverse bench --only drafts`: the table that follows from what a server counts, by a clock of its own."""

from __future__ import annotations

import asyncio
import csv
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from bench_server import Server, bench
from program import serve

from multiverse.errors import RunError
from multiverse.evaluation.bench import drafts, drafts_report
from multiverse.evaluation.bench.metrics import Drafted, drafted
from multiverse.evaluation.bench.points import Point
from multiverse.evaluation.bench.race import Sizes

MOST, RIGHT, KNEE = 8, 2, 8
"""A server drafts so many tokens, of which the first two are always right; a step computes eight in the same time."""


class Engine:
    """Is asked as `Traffic` is; all who ask at the same time are rows of the same steps."""

    url = "here"

    def __init__(self) -> None:
        self.rows, self.seconds = 0, 0.0
        self.counted, self.asked = Counter[str](), Counter[str]()

    def clock(self) -> float:
        return self.seconds

    async def answered(self, question: str, tokens: int, field: dict[str, Any]) -> None:
        assert field["max_branches"] == 1
        self.asked[question] += 1
        self.rows += 1
        try:
            for _ in range(tokens):
                await asyncio.sleep(0)
                self._step(field["drafts"])
        finally:
            self.rows -= 1

    def _step(self, length: int) -> None:
        """One row's part of it."""
        self.seconds += max(1.0, self.rows * (length + 1) / KNEE) / self.rows
        self.counted["steps"] += 1 / self.rows
        self.counted["tokens"] += 1 + min(length, RIGHT)
        self.counted["drafts"] += length > 0
        for place in range(min(length, RIGHT)):
            self.counted[str(place)] += 1

    def told(self, _: str) -> Drafted:
        counts = (self.counted[name] for name in ("steps", "tokens", "drafts"))
        return Drafted(*counts, tuple(self.counted[str(place)] for place in range(MOST)))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    monkeypatch.setattr(drafts, "drafted", engine.told)
    return engine


@pytest.fixture
def points(engine: Engine) -> list[Point]:
    sizes = Sizes(repeats=2, batches=[1, 4, 16], tokens=[20])

    async def measured() -> list[Point]:
        questions = (str(number) for number in count())
        return [point async for some in drafts.drafts(engine, questions, sizes) for point in some]  # type: ignore[arg-type]

    return asyncio.run(measured())


def test_the_table_drafts_as_long_as_it_pays_and_no_longer(engine: Engine, points: list[Point]) -> None:
    found = drafts.rates(points)
    assert list(found) == [1, 4, 16]
    assert found[1] == pytest.approx({0: 1, 2: 3, 4: 3, 8: 3 / (9 / 8)}, rel=0.02)
    assert found[4] == pytest.approx({0: 4, 2: 8, 4: 4.8, 8: 12 / 4.5}, rel=0.02)
    assert found[16] == pytest.approx({0: 8, 2: 8, 4: 4.8, 8: 12 / 4.5}, rel=0.02)
    assert str(drafts.measured(points)) == "1:2,16:0"
    assert set(engine.asked.values()) == {1}, "a drafter that remembers would know the answer"


def test_a_point_tells_of_its_steps_and_what_was_accepted(points: list[Point]) -> None:
    point = next(point for point in points if (point.way, point.batch) == ("4", 4))
    assert point.more["accepted"] == [1, 1, 0, 0]
    assert point.more["tokens_per_step"] == pytest.approx([3, 3], rel=0.02)
    assert point.more["step_ms"] == pytest.approx([2500, 2500], rel=0.02)
    assert next(point for point in points if point.way == "0").more["accepted"] == []


def test_they_are_told_as_a_table_as_csv_and_as_a_picture(points: list[Point], tmp_path: Path) -> None:
    told = drafts_report.section(points)
    assert "`--multiverse-drafts 1:2,16:0`" in told
    assert told.count("\n| 4 |") == 4
    drafts_report.write(points, tmp_path)
    rows = list(csv.DictReader((tmp_path / drafts_report.CSV).open()))
    assert len(rows) == 3 * 4 * 2
    assert float(rows[0]["tokens_per_second"]) == pytest.approx(1)
    assert (tmp_path / drafts_report.PLOT).stat().st_size > 10_000


def test_a_request_that_is_refused_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object) -> None:
        raise RunError("refuses")

    monkeypatch.setattr(engine, "answered", refused)
    with pytest.raises(RunError, match="refuses"):
        asyncio.run(anext(drafts.drafts(engine, iter("abc"), Sizes())))  # type: ignore[arg-type]


@pytest.mark.parametrize(("most", "lengths"), [(1, [0, 1]), (2, [0, 2]), (5, [0, 2, 4, 5]), (8, [0, 2, 4, 8])])
def test_lengths_are_tried_up_to_what_the_server_drafts(most: int, lengths: list[int]) -> None:
    assert drafts.draft_lengths(most) == lengths


@pytest.fixture
def running() -> Iterator[tuple[Server, str]]:
    server = Server()
    program = serve(server)  # type: ignore[arg-type]
    yield server, f"http://127.0.0.1:{program.server_address[1]}"
    program.shutdown()
    program.server_close()


def test_what_vllm_counts_is_added_up_over_engines(
    running: tuple[Server, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = running
    accepted = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
    lines = [
        f'{name}{{engine="{engine}",model_name="m"}} {value}'
        for engine in (0, 1)
        for name, value in (
            ("vllm:iteration_tokens_total_count", 10),
            ("vllm:generation_tokens_total", 3e1),
            ("vllm:spec_decode_num_drafts_total", 5),
            ("vllm:spec_decode_num_draft_tokens_total", 99),
        )
    ]
    lines += [f'{accepted}{{engine="0",model_name="m",position="{place}"}} {20 - place}' for place in range(11)]
    monkeypatch.setattr(server, "get", lambda _: (200, "\n".join(lines)))
    assert drafted(url) == Drafted(20, 60, 10, tuple(range(20, 9, -1)))


def test_a_server_that_does_not_draft_is_told_and_other_experiments_are_not_beside(
    running: tuple[Server, str], tmp_path: Path
) -> None:
    status, _, err = bench("--url", running[1], "-o", tmp_path, "--only", "drafts")
    assert (status, "does not draft; `--speculative-config`" in err) == (2, True), err
    with pytest.raises(SystemExit):
        bench("--only", "drafts,ways")
