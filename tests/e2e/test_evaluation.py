"""`multiverse eval` on the embedded model, with a real server, also one that it starts itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from tiers import Sizes

from multiverse.evaluation.compare import compare
from multiverse.evaluation.config import Config, Serve
from multiverse.evaluation.problems import load_problems
from multiverse.evaluation.run import Outcome, evaluate
from multiverse.evaluation.scores import scores
from multiverse.evaluation.server import serving
from multiverse.evaluation.tasks import Mode, load_task
from multiverse.harness.server import command, free_port
from multiverse.harness.settings import Endpoint
from multiverse.models import TINY
from multiverse.models.task import HELD_OUT_SEED, stream


def evaluated(mode: Mode, endpoint: Endpoint, home: Path, problems: int) -> Outcome:
    config = Config(
        output=home / mode,
        model="tiny",
        tasks=["embedded"],
        limit=problems,
        tokenizer=str(TINY),
        max_tokens=900,
        parameters={"temperature": 0},
        endpoint=endpoint,
        mode=mode,
    )
    outcome = evaluate(config, home)
    assert (outcome.refused, outcome.unfinished) == ([], 0)
    assert len(outcome.results.samples) == problems
    return outcome


@pytest.fixture(params=["one that runs", pytest.param("one of its own", marks=pytest.mark.long)])
def endpoint(request: pytest.FixtureRequest, host: str, tmp_path: Path) -> Iterator[Endpoint]:
    """A server; one that evaluation started itself is gone afterwards."""
    if request.param == "one that runs":
        yield Endpoint(base_url=f"{request.getfixturevalue('server')}/v1", timeout=300)
        return
    port = free_port()
    start = command(host, str(TINY), port, ["--served-model-name", "tiny"])
    endpoint = Endpoint(base_url=f"http://127.0.0.1:{port}/v1", timeout=300)
    serve = Serve(command=" ".join(start.arguments), environment=dict(start.environment), wait=300)
    with serving(serve, endpoint, tmp_path / "log"):
        yield endpoint
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_the_embedded_model_is_served_asked_and_graded(endpoint: Endpoint, tmp_path: Path, sizes: Sizes) -> None:
    parallel, sequential = (evaluated(mode, endpoint, tmp_path, sizes.graded) for mode in ("parallel", "sequential"))
    (score,) = scores(parallel.results.samples)
    assert parallel.warnings == []
    assert score.accuracy >= 0.95  # 99.5 % of a thousand (multiverse/models/tiny/README.md)
    assert score.well_formed == 1.0
    assert score.parallel_degree > 1.3
    should = {problem.prompt: problem.forks for problem in islice(stream(HELD_OUT_SEED), 400)}
    asked = {problem.id: problem.question for problem in load_problems(load_task("embedded", tmp_path))}
    assert all((sample.blocks > 0) == should[asked[sample.id]] for sample in parallel.results.samples)
    assert {sample.counted for sample in parallel.results.samples if sample.blocks} == {"server"}

    assert scores(sequential.results.samples)[0].parallel_degree == 1.0
    (row,) = compare([sequential.results, parallel.results])
    assert row.problems == sizes.graded
    assert row.better >= row.worse  # it was trained to fork
