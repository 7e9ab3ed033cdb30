"""`multiverse eval` on the embedded model, with a real `vllm serve --plugin multiverse` that it starts itself."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from multiverse.evaluation.config import Config
from multiverse.evaluation.problems import load_problems
from multiverse.evaluation.run import evaluate
from multiverse.evaluation.scores import scores
from multiverse.evaluation.tasks import load_task
from multiverse.models import TINY
from multiverse.models.task import HELD_OUT_SEED, stream

PROBLEMS = 40
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",
}


def test_the_embedded_model_is_served_asked_and_graded(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = f"{Path(sys.executable).with_name('vllm')} serve {TINY} --plugin multiverse --served-model-name tiny"
    command += f" --dtype float32 --max-model-len 1024 --block-size 32 --enforce-eager --host 127.0.0.1 --port {port}"
    config = Config(
        output=tmp_path / "run",
        model="tiny",
        tasks=["embedded"],
        limit=PROBLEMS,
        tokenizer=str(TINY),
        max_tokens=900,
        parameters={"temperature": 0},
        endpoint={"base_url": f"http://127.0.0.1:{port}/v1", "timeout": 300},
        serve={"command": command, "environment": ENVIRONMENT, "wait": 300},
    )
    outcome = evaluate(config, tmp_path)
    assert (outcome.refused, outcome.unfinished, outcome.warnings) == ([], 0, [])
    (score,) = scores(outcome.results.samples)
    assert score.samples == PROBLEMS
    assert score.accuracy >= 0.95  # 99.5 % of a thousand (multiverse/models/tiny/README.md)
    assert score.well_formed == 1.0
    assert score.parallel_degree > 1.3
    should = {
        problem.prompt: problem.forks
        for problem in (p for p, _ in zip(stream(HELD_OUT_SEED), range(400), strict=False))
    }
    asked = {problem.id: problem.question for problem in load_problems(load_task("embedded", tmp_path))}
    assert all((sample.blocks > 0) == should[asked[sample.id]] for sample in outcome.results.samples)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
