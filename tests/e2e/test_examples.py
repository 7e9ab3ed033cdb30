"""Every example runs as its README says and prints what it is there to show."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from multiverse.harness.server import installed

EXAMPLES = Path(__file__).parents[2] / "examples"
OFFLINE = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
needs_vllm = pytest.mark.skipif(not installed("vllm"), reason="an example of vLLM's own interface")


def ran(name: str, *arguments: str, **environment: str) -> str:
    """What an example prints."""
    program = [sys.executable] if name.endswith(".py") else ["bash"]
    command = [*program, str(EXAMPLES / name), *arguments]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readme_lists_every_example() -> None:
    text = (EXAMPLES / "README.md").read_text()
    files = [file.name for file in EXAMPLES.iterdir() if file.suffix in (".py", ".sh", ".ipynb", ".toml")]
    assert [name for name in files if f"]({name})" not in text] == []


def test_plain_curl_gets_figures_a_tree_and_events(server: str) -> None:
    output = ran("curl.sh", server)
    sections = dict(re.findall(r"== (.+?) ==\n(.*?)(?=\n==|\Z)", output, re.S))
    answer, tree, plain, events, mistake = sections.values()
    assert json.loads(answer)["usage"]["multiverse"]["branches"] == 2
    assert len(json.loads(tree)["choices"][0]["multiverse"]["tree"]) == 3
    assert "multiverse" not in json.loads(plain)["usage"]
    assert json.loads(plain)["choices"][0]["message"] == json.loads(answer)["choices"][0]["message"]
    assert events.count('"kind"') >= 5
    assert "max_branches must be an integer >= 1, got 0" in mistake


def test_an_openai_client_streams_one_answer_in_document_order(server: str) -> None:
    output = ran("openai_stream.py", server)
    assert re.search(r"^<Parallel>.*<Path>\n1: A .*<Path>\n2: B .*<Conclusion>.*Answer: 27\n", output, re.S)
    assert "104 tokens" in output
    assert "critical_path_tokens: 73" in output


def test_events_show_branches_taking_turns(server: str) -> None:
    output = ran("events.py", server)
    speakers = re.findall(r"^ branch (\d) says", output, re.M)
    assert speakers != sorted(speakers), "both speak before the first has ended"
    assert "answer forks into 1, 2" in output
    assert "answer goes on behind its branches" in output
    assert "critical path 73 of 104 tokens" in output


def test_budgets_bound_what_they_say(server: str) -> None:
    parts = re.split(r"^(?=no limit|max_)", ran("budgets.py", server), flags=re.M)[1:]
    answers = [re.search(r"answer '(.*?)', (\w+)", part).groups() for part in parts]  # type: ignore[union-attr]
    sizes = [tuple(map(int, re.search(r"(\d+) tokens on (\d+) positions", part).groups())) for part in parts]  # type: ignore[union-attr]
    assert answers[0] == answers[1] == ("40", "stop")
    assert sizes[0] == sizes[1]
    assert sizes[2][1] <= 90
    assert "not forked: {'too_wide': 1}" in parts[3]
    assert sizes[4][0] == 150


def test_a_second_turn_finds_the_kv_of_the_first(server: str) -> None:
    output = ran("follow_up.py", server)
    (first, branches, _, cached), (_, more, prompt, hit) = re.findall(
        r"^  (\d+), (\d+) branches\n  prompt of (\d+) tokens, (\d+) of them", output, re.M
    )
    assert (first, branches, more) == ("27", "2", "2")
    assert int(cached) == 0
    assert 64 <= int(hit) < int(prompt)


@needs_vllm
def test_a_batch_runs_offline() -> None:
    output = ran("vllm_batch.py", **OFFLINE)
    right, of = re.search(r"^(\d+) of (\d+) answers are right", output, re.M).groups()  # type: ignore[union-attr]
    assert int(of) == 16
    assert int(right) >= 15
    assert re.search(r"flat .*[2-6] branches, 1 at the top", output)


@needs_vllm
def test_a_model_with_the_tags_of_npr_forks_and_does_not_nest() -> None:
    flat, nested = re.split(r"^== nested", ran("npr_model.py", **OFFLINE), flags=re.M)
    assert "<guideline>" in flat
    assert "<step>\n2:" in flat
    assert "'branches': 2" in flat
    assert "'too_deep'" in nested


@needs_vllm
def test_tags_of_ones_own_fork() -> None:
    output = ran("custom_dialect.py", **OFFLINE)
    assert re.search(r"<work>.*<task>\n1: A.*<worker>\n2:.*<summary>.*Answer: 27", output, re.S)
    assert "2 branches were decoded in parallel; well formed: True" in output
