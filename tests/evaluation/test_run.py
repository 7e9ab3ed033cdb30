"""`multiverse eval CONFIG.yaml` over HTTP: figures, resuming, and what is said when something is wrong."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from program import KNOWN, Program, command, run

Start = Callable[..., tuple[Program, str]]
Configure = Callable[..., Path]
PROMPTS = list(KNOWN)


def results(config: Path) -> dict[str, Any]:
    """The figures of the run's only task."""
    (score,) = json.loads((config.with_suffix("") / "results.json").read_text())["scores"]
    return score  # type: ignore[no-any-return]


def samples(config: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (config.with_suffix("") / "samples.jsonl").read_text().splitlines()]


def test_a_run_grades_every_sample_and_takes_the_servers_figures(start: Start, configure: Configure) -> None:
    program, url = start(wrong=set(PROMPTS[:5]))
    config = configure(url, seeds=2)
    done = run(config)
    assert done.returncode == 0, done.stderr
    score = results(config)
    assert (score["problems"], score["samples"], score["accuracy"]) == (20, 40, 0.75)
    assert score["low"] < 0.75 < score["high"]
    forks = [sample for sample in samples(config) if sample["blocks"]]
    assert score["trigger_rate"] == len(forks) / 40
    assert {sample["counted"] for sample in forks} == {"server"}
    assert score["parallel_degree"] > 1.2
    assert score["fallbacks"] == {"too_wide": sum(sample["max_width"] == 6 for sample in forks)}
    assert {(body["seed"], body["max_tokens"]) for body in program.seen} == {(0, 32768), (1, 32768)}
    about = json.loads((config.with_suffix("") / "results.json").read_text())["about"]
    assert len(about["tasks"]["embedded"]["sha256"]) == 64
    assert about["tasks"]["embedded"]["licence"].startswith("Apache")


def test_a_run_with_seeds_asks_one_question_twice_and_says_if_the_server_does_not_keep_them(
    start: Start, configure: Configure
) -> None:
    for keeps in (True, False):
        program, url = start(seeds=keeps)
        config = configure(url, f"keeps_{keeps}", seeds=2, limit=3)
        done = run(config)
        assert done.returncode == 0, done.stderr
        assert ("does not keep seeds" in done.stderr) is not keeps
        asked = Counter((body["messages"][-1]["content"], body["seed"]) for body in program.seen)
        assert sorted(asked.values()) == [1, 1, 1, 1, 1, 2]
        assert results(config)["samples"] == 6
        told = run(config).stderr
        assert len(program.seen) == 7, "the second answer is kept, too"
        assert ("does not keep seeds" in told) is not keeps
    program, url = start(seeds=False)
    assert "does not keep seeds" not in run(configure(url, "one", limit=3)).stderr
    assert len(program.seen) == 3


def test_the_report_names_the_temperature_that_was_sent(start: Start, configure: Configure) -> None:
    _, url = start()
    for number, (parameters, said) in enumerate(
        [({"temperature": 0.25}, "Temperature 0.25 was sent."), ({"top_p": 0.9}, "No temperature was sent")]
    ):
        config = configure(url, f"run{number}", parameters=parameters, limit=2)
        assert run(config).returncode == 0
        assert said in (config.with_suffix("") / "report.md").read_text()


def test_sequential_mode_asks_the_server_not_to_fork_and_counts_every_token(start: Start, configure: Configure) -> None:
    program, url = start()
    config = configure(url, mode="sequential")
    assert run(config).returncode == 0
    assert all(body["multiverse"] == {"enabled": False} for body in program.seen)
    assert results(config)["parallel_degree"] == 1.0


def test_a_server_that_tells_nothing_is_measured_by_its_text(start: Start, configure: Configure) -> None:
    _, url = start(told=False, pieces=None)
    config = configure(url, mode="plain")
    assert run(config).returncode == 0
    assert results(config)["parallel_degree"] > 1.2
    assert results(config)["counted"] == "text"


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_blocks_that_a_reasoning_parser_takes_out_of_the_content_count(
    name: str, start: Start, configure: Configure
) -> None:
    scores = []
    for number, thoughts in enumerate((None, name)):
        _, url = start(thoughts=thoughts, wrong=set(PROMPTS[:5]))
        config = configure(url, f"run{number}")
        assert run(config).returncode == 0
        scores.append(results(config))
    told = ("accuracy", "trigger_rate", "well_formed_rate", "parallel_degree", "no_answer_rate")
    assert scores[0]["trigger_rate"] > 0.5
    assert {key: scores[1].get(key) for key in told} == {key: scores[0].get(key) for key in told}


def test_a_second_run_asks_nothing_and_needs_no_server(start: Start, configure: Configure) -> None:
    program, url = start()
    config = configure(url)
    assert run(config).returncode == 0
    asked, first = len(program.seen), samples(config)
    config.write_text(config.read_text().replace(url, "http://127.0.0.1:9/v1"))
    assert run(config).returncode == 0
    assert (len(program.seen), samples(config)) == (asked, first)


def heed_interrupts() -> None:
    """A shell lets its background jobs ignore interrupts, and a test may run in one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_run_that_is_interrupted_goes_on_with_what_is_missing(start: Start, configure: Configure) -> None:
    program, url = start(latency=1.0)
    config = configure(url)
    process = subprocess.Popen(command(config), stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts)  # noqa: PLW1509
    until = time.monotonic() + 60
    while len(program.seen) < 9 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, "interrupted" in told) == (130, True)
    program.latency, before = 0.0, len(program.seen)
    assert run(config).returncode == 0
    assert results(config)["samples"] == 20
    assert len(program.seen) - before <= 20 - (before - 4)  # at most the four under way are asked twice


def test_two_runs_on_one_output_are_refused(start: Start, configure: Configure) -> None:
    program, url = start(latency=1.0)
    config = configure(url)
    process = subprocess.Popen(command(config))
    until = time.monotonic() + 60
    while not program.seen and time.monotonic() < until:
        time.sleep(0.05)
    done = run(config)
    process.kill()
    process.wait()
    assert (done.returncode, "another run is at work" in done.stderr) == (2, True)


def test_a_server_that_fails_leaves_samples_for_the_next_run(start: Start, configure: Configure) -> None:
    program, url = start(status=503)
    config = configure(url, limit=3)
    done = run(config)
    assert (done.returncode, "3 samples are missing" in done.stderr) == (1, True)
    program.status = 400
    refused = run(config)
    assert (refused.returncode, "told to answer 400" in refused.stderr) == (1, True)
    program.status = 200
    assert run(config).returncode == 0
    assert results(config)["samples"] == 3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_wrong_endpoint_or_model_is_told_at_once(start: Start, configure: Configure) -> None:
    program, url = start()
    gone = run(configure(f"http://127.0.0.1:{free_port()}/v1"))
    assert (gone.returncode, "no server answers at http://127.0.0.1" in gone.stderr) == (2, True)
    path = run(configure(url.removesuffix("/v1")))
    assert (path.returncode, "often ends in /v1" in path.stderr) == (2, True)
    model = run(configure(url, model="large"))
    assert (model.returncode, "serves tiny, not 'large'" in model.stderr) == (2, True)
    assert program.seen == []


def test_a_model_without_tags_is_refused_or_doubted(start: Start, configure: Configure) -> None:
    program, url = start(pieces=3)
    done = run(configure(url))
    assert (done.returncode, program.seen) == (2, [])
    assert "tiny has no tag <Parallel>: its tokenizer makes 3 tokens of it" in done.stderr
    _, url = start(pieces=None, forking=False)
    done = run(configure(url, "other"))
    assert (done.returncode, "no answer holds a block" in done.stderr) == (0, True)


def test_a_server_of_its_own_is_started_and_ended(configure: Configure, tmp_path: Path) -> None:
    port = free_port()
    script = tmp_path / "server.py"
    here = Path(__file__).parent
    script.write_text(
        f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]\n"
        f"import program, threading; program.serve(program.Program(), {port}); threading.Event().wait()\n"
    )
    url = f"http://127.0.0.1:{port}/v1"
    config = configure(url, serve={"command": f"{command()[0]} {script}", "wait": 120})
    done = run(config)
    assert done.returncode == 0, done.stderr
    assert results(config)["samples"] == 20
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    broken = run(configure(url, "broken", serve={"command": f"{command()[0]} -c 'raise SystemExit(\"no GPU here\")'"}))
    assert (broken.returncode, "no GPU here" in broken.stderr) == (2, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ["aime99"]}, "task 'aime99' is unknown: it must be one of aime24, aime25, embedded, gpqa_diamond"),
        ({"mode": "quick"}, "mode: Input should be 'parallel', 'sequential' or 'plain'"),
        ({"dialect": "none"}, "none"),
        ({"seeds": []}, "seeds"),
        ({"sedes": 3}, "sedes: Extra inputs are not permitted"),
        ({"tasks": [{"name": "mine", "source": "lost.jsonl"}]}, "lost.jsonl: can't be read"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(settings: dict[str, Any], message: str, configure: Configure) -> None:
    done = run(configure("http://127.0.0.1:9/v1", **settings))
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
