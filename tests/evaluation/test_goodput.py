"""`multiverse bench --only goodput`: who comes when, who was served in time, and what is told about it."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from bench_server import STEP, WORDS, Server, bench, points
from program import KNOWN, serve

from multiverse.errors import RunError
from multiverse.evaluation.bench import run as bench_run
from multiverse.evaluation.bench.goodput import (
    ALL,
    NAME,
    RECORDED,
    Asked,
    Served,
    arrivals,
    summary,
    trace,
)
from multiverse.evaluation.bench.hosts import Served as Host
from multiverse.evaluation.bench.race import Sizes
from multiverse.evaluation.bench.workloads import workload
from multiverse.evaluation.plan.goodput import POLICIES
from multiverse.evaluation.plan.mix import NARROW, PLAIN, WIDE

LONG = Sizes(span=400.0, prompt=32)


def plain(tokens: int) -> Any:
    return workload(PLAIN, [tokens], WORDS.binding, 32)


def test_arrivals_come_at_the_rate_that_is_asked_for(tmp_path: Path) -> None:
    at_random = arrivals(2.0, 500.0, None, Random(1))
    assert len(at_random) == pytest.approx(1000, rel=0.1)
    gaps = [b - a for a, b in pairwise(at_random)]
    assert statistics.pstdev(gaps) == pytest.approx(0.5, rel=0.15)  # as that of Poisson arrivals is their mean
    file = tmp_path / "times"
    file.write_text("100\n100\n100\n106\n")
    assert arrivals(2.0, 4.6, str(file), Random(1)) == [0.0, 0.0, 1.5, 1.5, 1.5, 3.0, 3.0, 3.0, 4.5, 4.5, 4.5]


@pytest.mark.parametrize("text", ["", "5", "5\n5", "soon"])
def test_a_file_without_times_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "times").write_text(text)
    with pytest.raises(RunError, match="times"):
        arrivals(1.0, 9.0, str(tmp_path / "times"), Random(1))


def test_of_five_requests_four_have_blocks_and_one_of_these_is_wide() -> None:
    asked = trace(2.0, LONG, WORDS.binding, 0)
    share = {kind: sum(a.kind == kind for a in asked) / len(asked) for kind in (PLAIN, NARROW, WIDE)}
    assert share == pytest.approx({PLAIN: 0.2, NARROW: 0.64, WIDE: 0.16}, abs=0.04)
    assert {a.load.branches for a in asked if a.kind == WIDE} == {16}
    assert {a.load.branches for a in asked if a.kind == PLAIN} == {0}
    assert [a.load.shape for a in asked] == [a.load.shape for a in trace(2.0, LONG, WORDS.binding, 0)]
    assert asked[0].load.shape != trace(2.0, LONG, WORDS.binding, 1)[0].load.shape


def test_shapes_of_recorded_answers_take_the_place_of_made_up_ones(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps({"id": i, "text": p.parallel}) + "\n" for i, p in enumerate(KNOWN.values())))
    asked = trace(1.0, Sizes(span=100.0, transcripts=[str(file)]), WORDS.binding, 0)
    assert {a.kind for a in asked} == {PLAIN, RECORDED}
    assert all(a.load.branches > 1 for a in asked if a.kind == RECORDED)


def test_who_took_longer_per_token_behind_the_first_than_promised_was_late() -> None:
    asked = [Asked(4.0, PLAIN, plain(11)), Asked(1.0, WIDE, plain(101))]
    served = [Served(asked[0], 5.0, 6.0), Served(asked[1], 0.5, 10.6)]  # 100 and 101 ms per token
    found = summary(served, 0.1, 30.0)
    assert {kind: figures["met"] for kind, figures in found.items()} == {ALL: 1, PLAIN: 1, WIDE: 0}
    assert (found[ALL]["goodput"], found[ALL]["attainment"]) == (0.05, 0.5)
    assert summary(served, 0.1, 31.0)[ALL]["goodput"] == 0  # the server was not full yet
    assert summary(served, 0.1, 9.0)[ALL]["goodput"] == 0  # it ended when nobody came any more
    assert (found[PLAIN]["tpot_ms"], found[PLAIN]["ttft_ms"], found[WIDE]["latency_s"]) == pytest.approx(
        (100, 5000, 10.6)
    )


@pytest.fixture
def policies(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Server]]:
    """A server for each policy, and in `started` of one of them what they were started with."""
    known = {policy: Server() for policy in POLICIES}
    running = {policy: serve(server) for policy, server in known.items()}
    started: dict[str, list[str]] = {}

    @contextmanager
    def start(_: str, model: str, more: Sequence[str], **__: Any) -> Iterator[Host]:
        policy = dict(pairwise(more)).get("--multiverse-admission", "eager")
        started[policy] = list(more)
        yield Host(f"http://127.0.0.1:{running[policy].server_address[1]}", "tiny", model)

    monkeypatch.setattr(bench_run, "started", start)
    known["slack"].started = started  # type: ignore[attr-defined]
    yield known
    for server in running.values():
        server.shutdown()
        server.server_close()


def test_policies_take_turns_on_the_same_requests(policies: dict[str, Server], tmp_path: Path) -> None:
    policies["off"].step = 40 * STEP
    status, told, err = bench("-o", tmp_path, "--only", NAME, "--rates", "20,40", "--span", "1", "--prompt", "16")
    assert status == 0, err
    found = points(tmp_path, NAME)
    assert [(p.case["rate"], p.way) for p in found] == [(rate, policy) for rate in (20, 40) for policy in POLICIES]
    assert len({(p.batch, p.tokens, p.critical_path) for p in found}) == 2
    asked = {
        policy: [(len(body["prompt"]), body["max_tokens"]) for body in server.bodies if body.get("stream")]
        for policy, server in policies.items()
    }
    assert sorted(asked["off"]) == sorted(asked["slack"])
    assert "## Goodput by policy of admission" in told
    rows = list(csv.DictReader((tmp_path / "goodput.csv").open()))
    assert {(row["policy"], row["kind"]) for row in rows} >= {("off", ALL), ("slack", PLAIN), ("eager", NARROW)}
    late = [row for row in rows if row["policy"] == "off" and row["kind"] == PLAIN]
    assert {row["met"] for row in late} == {"0"}
    assert (tmp_path / "goodput.png").stat().st_size > 10_000
    promised = policies["slack"].started["slack"]  # type: ignore[attr-defined]
    assert float(promised[promised.index("--multiverse-tpot-slo-ms") + 1]) >= 2300 * STEP
    assert policies["slack"].started["off"][-2:] == ["--multiverse-admission", "off"]  # type: ignore[attr-defined]


def test_a_server_that_runs_has_one_policy_only(policies: dict[str, Server], tmp_path: Path) -> None:
    server = serve(policies["eager"])
    status, _, err = bench(
        "--url", f"http://127.0.0.1:{server.server_address[1]}", "--rates", "5", "--only", NAME, "-o", tmp_path
    )
    server.shutdown()
    server.server_close()
    assert status != 0
    assert "goodput starts a server for each policy" in err
    assert bench("--only", NAME, "-o", tmp_path)[2].count("goodput needs --rates") == 1
