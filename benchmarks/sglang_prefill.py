"""A prompt with blocks inside SGLang: computed in one forward, and by replay, in turn on one scheduler.

Prompts have about 1,500 tokens: two blocks of 8 paths of 80 tokens, or eight of 8 paths of 10. The prefix cache is
emptied before each run. What is timed is the CPU time of the scheduler's process (float32, one thread, torch_native)
from the request to its first token. In both ways each token is computed once, so what differs is the cost of forwards;
and in both ways torch_native computes, for every row, the queries of what has KV already, which kernels don't.
`forwards` are those that extend.

Writes benchmarks/results/sglang_prefill.json. Run with `make bench-sglang-prefill`.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from machine import facts
from random_model import make_model
from sglang_host import SGLangHost
from transformers import AutoTokenizer

from multiverse import Binding, Tag, bind

RESULTS = Path(__file__).parent / "results" / "sglang_prefill.json"
SHAPES, PATHS, PREFIX, REPEATS = ((2, 80), (8, 10)), 8, 60, 3


def make_prompt(rng: Random, binding: Binding, blocks: int, path: int) -> list[int]:
    def text(length: int) -> list[int]:
        return [rng.randrange(100) for _ in range(length)]

    ids, prompt = binding.ids, text(PREFIX)
    for _ in range(blocks):
        prompt += [ids[Tag.BLOCK_OPEN], ids[Tag.GOAL_OPEN], *[ids[Tag.OUTLINE_OPEN], ids[Tag.OUTLINE_CLOSE]] * PATHS]
        prompt += [ids[Tag.GOAL_CLOSE], *binding.goal_separator]
        for label in range(1, PATHS + 1):
            prompt += [*binding.path_header(str(label)), *text(path), ids[Tag.PATH_CLOSE], *binding.path_separator]
        prompt += [ids[Tag.CONCLUSION_OPEN], *text(20), ids[Tag.CONCLUSION_CLOSE], ids[Tag.BLOCK_CLOSE], *text(20)]
    return prompt


def measure(host: SGLangHost, binding: Binding, blocks: int, path: int) -> dict[str, Any]:
    """Median seconds of both ways, in turn, and their ratio."""
    rng = Random(1)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    forwards: dict[bool, int] = {}
    for repeat in range(REPEATS + 1):
        prompt = make_prompt(rng, binding, blocks, path)
        for single_pass in (True, False) if repeat % 2 else (False, True):
            host.configure(single_pass=single_pass, chunked_prefill_size=None)
            host.flush()
            begin, before = host.cpu_seconds(), host.counters()
            host.generate([prompt], max_tokens=1, ignore_eos=True)
            if repeat:  # the first one warms up
                seconds[single_pass].append(host.cpu_seconds() - begin)
            after = host.counters()
            forwards[single_pass] = after["extends"] - before["extends"]
            assert len(prompt) <= after["scheduled"] - before["scheduled"] <= len(prompt) + 1
    single, replay = statistics.median(seconds[True]), statistics.median(seconds[False])
    return {
        "tokens": len(prompt),
        "single_pass": {"seconds": round(single, 3), "forwards": forwards[True]},
        "replay": {"seconds": round(replay, 3), "forwards": forwards[False]},
        "ratio": round(replay / single, 2),
        "all_seconds": {str(key): [round(value, 3) for value in values] for key, values in seconds.items()},
    }


def main() -> None:
    results: dict[str, Any] = {"machine": facts()}
    for hidden, layers in ((192, 4), (384, 8)):
        with tempfile.TemporaryDirectory() as directory:
            parameters = make_model(Path(directory), hidden, layers)
            settings = {"context_length": 4096, "max_running_requests": 512, "attention_backend": "torch_native"}
            host = SGLangHost(directory, settings=settings)
            binding = bind("multiverse", AutoTokenizer.from_pretrained(directory))
            results[f"random, {parameters / 1e6:.1f} M parameters"] = {
                f"{blocks} blocks of {PATHS} paths of {path}": measure(host, binding, blocks, path)
                for blocks, path in SHAPES
            }
            host.close()
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
