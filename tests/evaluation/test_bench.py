"""`multiverse bench` against a server that is a program: it plays shapes and takes as long as it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import KNOWN, run, serve

from multiverse import Status, layout, parse_text, to_transcript
from multiverse.decoding.shaped import ShapedController, sampled_tokens
from multiverse.errors import RunError
from multiverse.evaluation.bench.experiments import turn_metrics
from multiverse.evaluation.bench.facts import facts
from multiverse.evaluation.bench.hosts import words_of
from multiverse.evaluation.bench.points import Point, ahead_from, races, ratio
from multiverse.evaluation.bench.report import write_report
from multiverse.evaluation.bench.run import RESULTS
from multiverse.evaluation.bench.workloads import block, of_tokens, recorded, shape_in, workload
from multiverse.evaluation.plan.shapes import Shape, shape_of
from multiverse.models import TINY
from multiverse.serving.options import Options

WAYS = (("splice", 50, 2.0), ("client", 100, 2.5), ("sequential", 100, 3.0))
WORDS = words_of(str(TINY))
STEP = 0.0004
"""Seconds that a position takes on the program's server."""


class Server:
    """Knows completions: plain ones, and those of a shape. Decodes a position in `STEP`, prefills in no time."""

    def __init__(self, shapes: str = "accept") -> None:
        self.options = Options(shapes=shapes)
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.forks = 0
        self._lock = threading.Lock()

    def get(self, path: str) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"data": [{"id": "tiny", "root": str(TINY)}]}
        lines = [
            f'multiverse:{n}_seconds_{what}{{engine="0"}} {self.forks * value}'
            for n, each in (("fork", 0.002), ("join", 0.003))
            for what, value in (("sum", each), ("count", 1))
        ]
        return (200, "\n".join(lines)) if path == "/metrics" else (404, {})

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path != "/v1/completions":
            return 404, {}
        given = body.get("multiverse")
        try:
            shape = self.options.for_request(given).shape
        except Exception as error:
            return 400, {"error": {"message": str(error)}}
        tokens, figures, steps = body["max_tokens"], None, body["max_tokens"]
        if shape is not None:
            load = workload("", shape, WORDS.binding, len(body["prompt"]))
            tokens, steps = load.tokens + load.goals, load.critical_path
            figures = {"tokens": tokens, "branches": load.branches, "fallbacks": {}}
        with self._lock:
            self.bodies.append(body)
            self.forks += shape is not None
            self.asked["shape" if shape else "disabled" if given else "plain"] += 1
        time.sleep(STEP * steps)
        usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1} | (
            {"multiverse": figures} if figures else {}
        )
        choice = {"index": 0, "text": "", "finish_reason": "length", "token_ids": [20] * tokens}
        return 200, {
            "id": "1",
            "object": "text_completion",
            "created": 1,
            "model": "tiny",
            "choices": [choice],
            "usage": usage,
        }


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[Server, str]]]:
    servers = []

    def begin(**settings: Any) -> tuple[Server, str]:
        server = Server(**settings)
        servers.append(serve(server))
        return server, f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield begin
    for known in servers:
        known.shutdown()
        known.server_close()


SMALL = ("--repeats", "2", "--tokens", "120,240", "--widths", "2,4", "--batches", "1,4", "--lengths", "8,32")


def bench(*arguments: object) -> tuple[int, str, str]:
    done = run(*arguments, command="bench")
    return done.returncode, done.stdout, done.stderr


def points(output: Path, experiment: str) -> list[Point]:
    data = json.loads((output / RESULTS).read_text())
    return [Point(**point) for point in data["points"] if point["experiment"] == experiment]


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"id": i, "text": p.parallel}) + "\n" for i, p in enumerate(KNOWN.values())))
    return path


def test_every_experiment_is_measured_and_told(start: Any, tmp_path: Path, answers: Path) -> None:
    server, url = start()
    out = tmp_path / "out"
    status, told, err = bench("--url", url, "-o", out, *SMALL, "--transcripts", answers, "--answers", "3")
    assert status == 0, err
    assert told.count("## ") == 8
    assert [(p.case["tokens"], p.case["width"]) for p in points(out, "degree")] == [
        (tokens, width) for tokens in (120, 240) for width in (1, 2, 4)
    ]
    assert [p.batch for p in points(out, "batch")] == [1, 1, 4, 4]
    assert [r.case for r in races(points(out, "ways"), "ways")] == [
        {"width": 4, "length": length} for length in (8, 32)
    ]
    assert all(p.more == pytest.approx({"fork_seconds": 0.002, "join_seconds": 0.003}) for p in points(out, "turns"))
    assert [(p.way, p.batch) for p in points(out, "independent")] == [
        each for width in (2, 4) for each in (("splice", 1), ("sequential", 1), ("one", 1), ("independent", width))
    ]
    assert [p.way for p in points(out, "mixed")] == ["alone", "beside sequential", "beside splice"]
    assert [len(p.more["others_tokens_per_second"]) for p in points(out, "mixed")] == [2, 2, 2]
    assert len({p.case["answer"] for p in points(out, "replay")}) == 3
    assert {(p.way, len(p.seconds)) for p in points(out, "plain")} == {("with", 8), ("without", 8)}
    data = json.loads((out / RESULTS).read_text())
    assert data["plain"] == "one server, the request field on and off"
    assert data["model"]["parameters"] == 1_919_680
    assert (out / "bench.png").stat().st_size > 10_000
    assert all({"ignore_eos": True, "temperature": 0}.items() <= body.items() for body in server.bodies)
    assert all(str(tag) in server.bodies[-1]["logit_bias"] for tag in WORDS.binding.tags)


def test_on_a_server_whose_steps_all_take_the_same_the_gain_is_the_bound(start: Any, tmp_path: Path) -> None:
    _, url = start()
    bench("--url", url, "-o", tmp_path, "--only", "ways,degree", *SMALL)
    for race in races(points(tmp_path, "ways"), "ways"):
        splice = race.ways["splice"]
        assert splice.bound == race.ways["sequential"].tokens / splice.critical_path
        least = STEP * splice.critical_path
        assert all(seconds >= least for seconds in splice.seconds)
        assert all(s >= STEP * splice.tokens for s in race.ways["sequential"].seconds)
    assert "With 4 branches the splice is" in (tmp_path / "bench.md").read_text()


def test_the_client_forks_as_a_client_would(start: Any, tmp_path: Path) -> None:
    server, url = start()
    bench("--url", url, "-o", tmp_path, "--only", "ways", "--repeats", "1", "--widths", "3", "--lengths", "5")
    *_, joined = [body for body in server.bodies if body["max_tokens"] == 16 and body.get("return_token_ids")]
    load = workload("", block(3, 5), WORDS.binding, 64)
    assert len(joined["prompt"]) + 16 == 64 + load.tokens + load.goals
    branches = [b["prompt"] for b in server.bodies if b["max_tokens"] == 5 and b.get("return_token_ids")]
    assert len(branches) == 3
    assert sum(joined["prompt"][: len(p)] == p for p in branches) == 1  # the first one is found in the prefix cache


def test_what_one_server_can_not_do_is_left_out_and_told(start: Any, tmp_path: Path, monkeypatch: Any) -> None:
    server, url = start()
    monkeypatch.setattr(server, "get", lambda path: (404, {}) if path == "/metrics" else Server.get(server, path))
    status, told, err = bench("--url", url, "-o", tmp_path, "--only", "turns,degree", *SMALL)
    assert (status, "turns is left out" in err, "turns: left out" in told) == (1, True, True)
    assert points(tmp_path, "degree")


def test_a_server_that_takes_no_shapes_says_how_it_must_be_started(start: Any, tmp_path: Path) -> None:
    _, url = start(shapes="refuse")
    status, _, err = bench("--url", url, "-o", tmp_path, *SMALL)
    assert (status, "--multiverse-shapes accept" in err) == (2, True)


def test_a_server_that_does_not_fork_is_found_out(start: Any, tmp_path: Path, monkeypatch: Any) -> None:
    server, url = start()
    monkeypatch.setattr(server, "options", type("Deaf", (), {"for_request": lambda *_: Options()})())
    status, _, err = bench("--url", url, "-o", tmp_path, *SMALL)
    assert (status, "is the plugin on" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--url", "http://127.0.0.1:9"), "is a server running there?"),
        (("--url", "http://127.0.0.1:9", "--dtype", "float32"), "a server that runs can't be given any"),
        (("--url", "http://127.0.0.1:9", "--cpu-time"), "of a server that is started here"),
        (("--repeats", "0"), "--repeats must be positive"),
        (("--only", "replay"), "replay needs --transcripts"),
    ],
)
def test_a_mistake_is_named(arguments: tuple[str, ...], message: str) -> None:
    status, _, err = bench(*arguments)
    assert (status, message in err) == (2, True), err


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


def test_recorded_answers_without_blocks_are_not_replayed(tmp_path: Path, answers: Path) -> None:
    assert len(recorded([str(answers)], 5, 1.0, WORDS.binding, 10)) == 5
    (tmp_path / "flat.txt").write_text("no block")
    with pytest.raises(RunError, match="no answer has a block"):
        recorded([str(tmp_path / "flat.txt")], 5, 1.0, WORDS.binding, 10)


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


def test_metrics_are_added_up_over_engines(start: Any, monkeypatch: Any) -> None:
    server, url = start()
    text = "".join(
        f'multiverse:{n}_seconds_{w}{{engine="{e}"}} {v}\n'
        for n in ("fork", "join")
        for e in (0, 1)
        for w, v in (("sum", 2.5), ("count", 4.0))
    )
    monkeypatch.setattr(server, "get", lambda _: (200, text))
    assert turn_metrics(url) == {"fork_seconds": (5.0, 8.0), "join_seconds": (5.0, 8.0)}
