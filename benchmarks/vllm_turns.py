"""Steps that a fork and a join take in vLLM if the model itself writes the goal: `vllm_turns.py MODEL [--record]`.

A real server, over HTTP, at batch 1. What a fork and a join take is told by its own metrics: from the last token of a
goal to the start of the branches, and from the end of the last branch to the start of what follows. A step is what an
answer takes per token of its critical path. `multiverse bench --only turns` forces the goal as a whole instead, which
is then computed at the fork.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from pathlib import Path
from typing import Any

import openai
from figures import record
from scripted import END, LEAD, PATH

from multiverse.evaluation.bench.hosts import words_of
from multiverse.evaluation.bench.metrics import turn_metrics
from multiverse.harness.server import Server, command, free_port
from multiverse.structure.dialects import Tag

WIDTHS, REPEATS, PROMPT = (2, 4, 16), 20, 64
ARGUMENTS = ("--logits-processors", "scripted:Scripted", "--dtype", "bfloat16", "--max-model-len", "4096")


@functools.cache
def _end(model: str) -> int:
    return words_of(model).binding.ids[Tag.BLOCK_CLOSE]


def ask(client: openai.OpenAI, model: str, width: int, number: int) -> Any:
    """One answer with one block, with which it ends, to a prompt of its own."""
    return client.completions.create(
        model=model,
        prompt=[100 + (number * 7 + at) % 100 for at in range(PROMPT)],
        max_tokens=4000,
        temperature=0,
        extra_body={
            "vllm_xargs": {"scripted": width},
            "stop_token_ids": [_end(model)],
            "multiverse": {"return_tree": True},
        },
    )


def steps(url: str, model: str, width: int) -> tuple[float, float]:
    """Of a fork and of a join, in steps."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=600)
    for number in range(2):
        ask(client, model, width, number)
    before, seconds, longest = turn_metrics(url), [], 0
    for number in range(2, 2 + REPEATS):
        start = time.perf_counter()
        answer = ask(client, model, width, number)
        seconds.append(time.perf_counter() - start)
        told = answer.usage.model_dump()["multiverse"]
        assert (told["blocks"], told["branches"]) == (1, width), told
        longest = told["critical_path_tokens"]
    step = statistics.median(seconds) / longest
    after = turn_metrics(url)
    mean = {name: (after[name][0] - before[name][0]) / (after[name][1] - before[name][1]) for name in after}
    return mean["fork_seconds"] / step, mean["join_seconds"] / step


def main() -> None:
    """Measure, print, write figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/figures.json")
    options = parser.parse_args()
    port, model = free_port(), str(options.model.resolve())
    print(f"{LEAD} tokens, a goal, paths of {PATH} tokens, a conclusion of {END}; {REPEATS} answers each")
    with Server(command("vllm", model, port, ARGUMENTS), port) as server:
        server.wait(600)
        for width in WIDTHS:
            fork, join = steps(server.url, model, width)
            print(f"{width} branches: a fork takes {fork:.2f} steps, a join {join:.2f}")
            if options.record:
                record(f"fork_join_steps_{width}", round(fork + join, 2), "make bench-vllm-turns")


if __name__ == "__main__":
    main()
