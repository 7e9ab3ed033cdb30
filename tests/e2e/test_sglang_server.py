"""A real `sglang serve --plugin multiverse` over HTTP, as an unmodified OpenAI client and `sgl.function` see it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
from openai import OpenAI
from server import free_port, wait_until_healthy

from multiverse import Limits, parse_text
from multiverse.models import TINY
from multiverse.models.task import Problem, generate
from multiverse.models.tokenizer import turn
from multiverse.oracle import generate as reference
from multiverse.oracle import load

pytest.importorskip("sglang", reason="this server belongs to SGLang's environment")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a server with the embedded model."""
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "1"}
    environment.pop("MULTIVERSE", None)
    command = [str(Path(sys.executable).with_name("sglang")), "serve", "--plugin", "multiverse"]
    command += ["--model-path", str(TINY), "--served-model-name", "tiny", "--device", "cpu", "--dtype", "float32"]
    command += ["--attention-backend", "torch_native", "--context-length", "1024", "--max-total-tokens", "16384"]
    command += ["--max-running-requests", "64", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    command += ["--skip-server-warmup", "--enable-metrics"]
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        wait_until_healthy(process, port, log)
        yield f"http://127.0.0.1:{port}"
        assert process.poll() is None, log.read_text()[-4000:]
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="module")
def client(server: str) -> OpenAI:
    return OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0, timeout=240)


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    rng = Random(21)
    kinds = ("single", "flat", "nested", "chain") * 4
    return [generate(rng, kind, held_out=True) for kind in kinds]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def expected(problems: list[Problem]) -> list[tuple[str, int]]:
    """Text and number of tokens of the oracle's answers; the end-of-turn token is counted but not shown."""
    model, tokenizer = load(str(TINY))
    prompts = [tokenizer.encode(turn(problem)) for problem in problems]
    answers = reference(model, tokenizer, prompts, limits=Limits(max_tokens=900))
    return [(tokenizer.decode(answer.ids, skip_special_tokens=True), len(answer.ids)) for answer in answers]


def ask(client: OpenAI, problem: Problem, **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": problem.prompt}]
    settings = {"temperature": 0, "max_tokens": 900} | options
    return client.chat.completions.create(model="tiny", messages=messages, **settings)


def test_answers_come_in_document_order_with_every_token_counted(
    client: OpenAI, problems: list[Problem], expected: list[tuple[str, int]]
) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda problem: ask(client, problem), problems))
    assert [(a.choices[0].message.content, a.usage.completion_tokens) for a in answers] == expected
    assert {answer.choices[0].finish_reason for answer in answers} == {"stop"}
    assert any(parse_text(text).blocks for text, _ in expected)


def test_a_stream_adds_up_to_the_answer(
    client: OpenAI, problems: list[Problem], expected: list[tuple[str, int]]
) -> None:
    def streamed(problem: Problem) -> str:
        chunks = ask(client, problem, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(streamed, problems)) == [text for text, _ in expected]


def test_a_client_that_goes_away_leaves_nothing_behind(
    client: OpenAI, server: str, problems: list[Problem], expected: list[tuple[str, int]]
) -> None:
    for problem in problems[:8]:
        stream = ask(client, problem, stream=True)
        for _, _ in zip(range(12), stream, strict=False):
            pass
        stream.close()
    until = time.monotonic() + 60
    while (left := gauge(server, "sglang:num_running_reqs")) and time.monotonic() < until:
        time.sleep(0.5)
    assert left == 0
    assert ask(client, problems[1]).choices[0].message.content == expected[1][0]


def test_max_tokens_is_exact(client: OpenAI, problems: list[Problem]) -> None:
    answer = ask(client, problems[2], max_tokens=100)
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (100, "length")


def test_a_program_of_the_front_end_gets_the_whole_tree(
    server: str, problems: list[Problem], expected: list[tuple[str, int]]
) -> None:
    """`s += sgl.gen(...)` on a model that forks by itself: nothing to change in the program."""
    import sglang as sgl

    @sgl.function  # type: ignore[untyped-decorator]
    def solve(s: Any, question: str) -> None:
        s += question + sgl.gen("answer", max_tokens=900, temperature=0)

    backend = sgl.RuntimeEndpoint(server)
    states = solve.run_batch(
        [{"question": turn(problem)} for problem in problems], backend=backend, num_threads=8, progress_bar=False
    )
    assert [state["answer"] for state in states] == [text for text, _ in expected]


def gauge(server: str, name: str) -> float:
    text = urllib.request.urlopen(f"{server}/metrics", timeout=10).read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))
