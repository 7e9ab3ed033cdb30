"""`multiverse bench` against a server that is a program: it plays shapes and takes as long as it is told to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from bench_server import SMALL, STEP, WORDS, Server, bench, points
from program import KNOWN, serve

from multiverse.errors import RunError
from multiverse.evaluation.bench import run as bench_run
from multiverse.evaluation.bench.hosts import Served
from multiverse.evaluation.bench.metrics import turn_metrics
from multiverse.evaluation.bench.points import races
from multiverse.evaluation.bench.run import RESULTS
from multiverse.evaluation.bench.workloads import block, recorded, workload
from multiverse.serving.options import Options
from multiverse.serving.sharing import gate


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


def test_the_table_of_shared_prefixes_is_what_the_gate_reads(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers, of which one takes half as long for a step, by a clock of its own."""
    servers = {"always": start(), "never": start()}
    servers["always"][0].step /= 2

    @contextmanager
    def started(_: str, model: str, more: Sequence[str], **__: Any) -> Iterator[Served]:
        setting = dict(pairwise(more)).get("--multiverse-shared-prefix", "never")
        server, url = servers[setting]
        yield Served(url, "tiny", model, clock=lambda: server.busy)

    monkeypatch.setattr(bench_run, "started", started)
    options = ("--only", "prefix", "--repeats", "2", "--widths", "2,4", "--prefixes", "60,90")
    status, told, err = bench("--host", "sglang", "-o", tmp_path, *options)
    assert (status, told.count("| yes |")) == (0, 4), err
    table = gate(str(tmp_path / RESULTS)).table
    assert [(row.width, row.shared, row.kv_heads) for row in table] == [(2, 60, 2), (4, 60, 2), (2, 90, 2), (4, 90, 2)]
    assert {row.ratio for row in table} == {0.5}


def test_prefixes_are_measured_on_servers_that_are_started_for_it(start: Any, tmp_path: Path) -> None:
    _, url = start()
    status, _, err = bench("--url", url, "-o", tmp_path, "--only", "prefix,ways", *SMALL)
    assert (status, "prefix is left out: prefix starts two servers" in err) == (1, True)


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


def test_recorded_answers_without_blocks_are_not_replayed(tmp_path: Path, answers: Path) -> None:
    assert len(recorded([str(answers)], 5, 1.0, WORDS.binding, 10)) == 5
    (tmp_path / "flat.txt").write_text("no block")
    with pytest.raises(RunError, match="no answer has a block"):
        recorded([str(tmp_path / "flat.txt")], 5, 1.0, WORDS.binding, 10)


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
