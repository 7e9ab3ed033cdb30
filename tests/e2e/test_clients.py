"""Clients that know nothing of blocks, many at once: an OpenAI client, and vLLM's own benchmark. No error, ever."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from tiers import Sizes

from multiverse.models import TINY
from multiverse.models.task import Problem
from multiverse.models.task import stream as drawn

AT_ONCE = (pytest.param(1, marks=pytest.mark.long), 16, pytest.param(64, marks=pytest.mark.long))


def problems(number: int) -> list[Problem]:
    return list(islice(drawn(9), number))


def asked(client: OpenAI, problem: Problem, **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": problem.prompt}]
    options = {"temperature": 0, "max_tokens": 900, **options}
    return client.chat.completions.create(model="tiny", messages=messages, **options)


def whole(client: OpenAI, problem: Problem) -> str:
    return str(asked(client, problem).choices[0].message.content)


def streamed(client: OpenAI, problem: Problem) -> str:
    chunks = asked(client, problem, stream=True)
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


@pytest.mark.parametrize("at_once", AT_ONCE)
def test_an_openai_client_gets_the_same_answers_streamed_or_not_alone_or_in_a_crowd(
    client: OpenAI, at_once: int
) -> None:
    asked_for = list(islice(drawn(5), max(4, at_once)))
    with ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(lambda problem: whole(client, problem), asked_for))
        assert list(pool.map(lambda problem: streamed(client, problem), asked_for)) == answers
    right = [text.rpartition("Answer:")[2].strip() == p.answer for text, p in zip(answers, asked_for, strict=True)]
    assert sum(right) >= 0.9 * len(right)  # 99.5 % of a thousand (multiverse/models/tiny/README.md)


def test_the_tokens_of_all_branches_are_those_of_the_answer_for_300_random_structured_answers(
    client: OpenAI, sizes: Sizes
) -> None:
    """Sampled, so that many are malformed too; of every one the tree adds up."""
    forking = [problem for problem in islice(drawn(11), sizes.sampled * 3 // 2) if problem.forks][: sizes.sampled]

    def one(numbered: tuple[int, Problem]) -> tuple[int, int, int, int]:
        seed, problem = numbered
        options = {"multiverse": {"return_tree": True}}
        answer = asked(client, problem, temperature=1.0, seed=seed, max_tokens=200, extra_body=options)
        record = answer.choices[0].multiverse
        in_tree = sum(len(strand["token_ids"]) for strand in record["tree"])
        return answer.usage.completion_tokens, in_tree, record["tokens"], len(record["tree"]) - 1

    with ThreadPoolExecutor(48) as pool:
        counts = list(pool.map(one, enumerate(forking)))
    assert len(counts) == sizes.sampled
    assert [(usage, usage) for usage, *_ in counts] == [(in_tree, tokens) for _, in_tree, tokens, _ in counts]
    assert sum(branches > 1 for *_, branches in counts) > sizes.sampled * 2 // 3


@pytest.fixture(params=AT_ONCE)
def load(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[int, list[str]]:
    """How many requests, and what both benchmarks are told of it: questions in the form of ShareGPT."""
    number = max(8, request.param)
    turns = [[{"from": "human", "value": p.prompt}, {"from": "gpt", "value": p.parallel}] for p in problems(number)]
    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps([{"conversations": each} for each in turns]))
    options = ["--model", "tiny", "--tokenizer", str(TINY), "--dataset-name", "sharegpt", "--dataset-path"]
    options += [str(questions), "--sharegpt-output-len", "60", "--num-prompts", str(number)]
    return number, [*options, "--max-concurrency", str(request.param)]


def benchmarked(command: list[str], result: Path) -> dict[str, Any]:
    """What a benchmark writes as its result, in its last line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    figures: dict[str, Any] = json.loads(result.read_text().splitlines()[-1])
    print(f"{figures['request_throughput']:.2f} requests/s, {figures['output_throughput']:.0f} tokens/s")
    return figures


def test_the_benchmark_of_vllm_runs_without_an_error(server: str, tmp_path: Path, load: Any) -> None:
    """`vllm bench serve` as it is; it streams."""
    pytest.importorskip("vllm", reason="it comes with vLLM; SGLang's own is tried below")
    number, options = load
    command = [str(Path(sys.executable).with_name("vllm")), "bench", "serve", "--base-url", server, *options]
    command += ["--backend", "openai-chat", "--endpoint", "/v1/chat/completions", "--temperature", "0"]
    command += ["--save-result", "--result-dir", str(tmp_path), "--result-filename", "result.json"]
    result = benchmarked(command, tmp_path / "result.json")
    assert (result["completed"], result["failed"]) == (number, 0)


@pytest.mark.parametrize("stream", [True, pytest.param(False, marks=pytest.mark.long)])
def test_the_benchmark_of_sglang_runs_without_an_error(server: str, tmp_path: Path, load: Any, stream: bool) -> None:
    """`python -m sglang.bench_serving` as it is."""
    pytest.importorskip("sglang", reason="it comes with SGLang; vLLM's own is tried above")
    number, options = load
    command = [sys.executable, "-m", "sglang.bench_serving", "--backend", "sglang-oai-chat", "--base-url", server]
    command += [*options, "--output-file", str(tmp_path / "result.jsonl"), "--output-details"]
    result = benchmarked([*command, *([] if stream else ["--disable-stream"])], tmp_path / "result.jsonl")
    assert (result["completed"], set(result["errors"])) == (number, {""})
