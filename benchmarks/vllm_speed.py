"""Speed of branches inside vLLM against decoding the same tokens one by one, and against a client that forks by itself.

All three ways run on one engine, in this process, on one thread, in turn. What is timed is the CPU time of the process
(front end, scheduler, worker and model) from a prompt that ends with goal-close and is in the prefix cache, but for its
last, partly filled block, to the last token of the conclusion:

- plugin: one request. It forks N branches of L sampled tokens, joins them and samples the conclusion.
- sequential: one plain request that decodes as many tokens as the plugin's answer has, injected ones included.
- client: N plain requests in one call, one per branch; then one plain request with the joined text, whose beginning is
  in the prefix cache (prefix and first branch) and whose rest is prefilled, and which samples the conclusion. It is
  flattered: a real client pays for HTTP, and its conclusion doesn't see branches the way models are trained to.

Adds to benchmarks/results/vllm_speed.json. Run with `make bench-vllm`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from machine import facts
from random_model import make_model
from vllm_random import CLOSE_AFTER, add_results, generate, make_engine, spread

import multiverse_vllm
from multiverse import Tag, bind

RESULTS = Path(__file__).parent / "results" / "vllm_speed.json"
PROMPT, CONCLUSION = 144, 32
PLAIN = {"multiverse": {"enabled": False}}
# branches, tokens of each, repeats, whether to decode sequentially as well
CASES = [(4, 64, 3, True), (8, 128, 2, True), (4, 512, 2, False)]


class Race:
    """N branches of L tokens, decoded in three ways, and the prefill of one of them."""

    def __init__(self, llm: Any, branches: int, length: int, rng: Random) -> None:
        self.llm, self.branches, self.length, self.rng = llm, branches, length, rng
        tokenizer = llm.get_tokenizer()
        self.binding = binding = bind("multiverse", tokenizer)
        outlines = "".join(f"<Outline>\n{i}: x\n</Outline>\n" for i in range(1, branches + 1))
        self.goal = list(tokenizer.encode(f"<Parallel>\n<Goal>\n{outlines}</Goal>"))
        self.headers = [[*binding.path_header(str(i))] for i in range(1, branches + 1)]
        self.separator, self.tail = list(binding.goal_separator), list(binding.conclusion_header)
        self.close_after = {CLOSE_AFTER: [length, binding.ids[Tag.PATH_CLOSE]]}
        self.never = dict.fromkeys([*binding.tags, *tokenizer.all_special_ids], -100.0)
        paths = sum(map(len, self.headers)) + branches * (length + 1 + len(self.separator))
        self.tokens = len(self.separator) + paths + len(self.tail) + CONCLUSION
        self.critical_path = 0

    def prompt(self) -> list[int]:
        """A new prompt, already in the prefix cache as far as its blocks are full."""
        filler = [self.rng.randrange(100) for _ in range(PROMPT - len(self.goal))]
        self._generate([filler + self.goal], max_tokens=1, extra_args=PLAIN)
        return filler + self.goal

    def _generate(self, prompts: list[list[int]], **sampling: Any) -> list[Any]:
        return generate(self.llm, prompts, logit_bias=self.never, **sampling)

    def plugin(self, prompt: list[int]) -> None:
        (output,) = self._generate([prompt], max_tokens=self.tokens, extra_args=self.close_after)
        record = output.outputs[0].multiverse
        assert len(output.outputs[0].token_ids) == record["tokens"] == self.tokens, record
        assert record["branches"] == self.branches, record
        assert record["recomputed_tokens"] == 0, record
        self.critical_path = record["critical_path_tokens"]

    def sequential(self, prompt: list[int]) -> None:
        self._generate([prompt], max_tokens=self.tokens, extra_args=PLAIN)

    def client(self, prompt: list[int]) -> None:
        prefix = prompt + self.separator
        starts = [prefix + header for header in self.headers]
        outputs = self._generate(starts, max_tokens=self.length + 1, extra_args=PLAIN | self.close_after)
        joined = list(prefix)
        for header, output in zip(self.headers, outputs, strict=True):
            joined += [*header, *output.outputs[0].token_ids, *self.separator]
        joined += self.tail
        assert len(joined) + CONCLUSION == PROMPT + self.tokens
        self._generate([joined], max_tokens=CONCLUSION, extra_args=PLAIN)

    def prefill(self, prompt: list[int]) -> None:
        """Only what the client computes again: all branches but the first, behind what is in the prefix cache."""
        again = (self.branches - 1) * (len(self.headers[0]) + self.length + 1 + len(self.separator)) + len(self.tail)
        text = [self.rng.randrange(100) for _ in range(again)]
        self._generate([prompt + text], max_tokens=1, extra_args=PLAIN)


def cpu_seconds(work: Callable[[list[int]], None], prompt: list[int]) -> float:
    start = time.process_time()
    work(prompt)
    return time.process_time() - start


def measure(race: Race, repeats: int, sequential: bool) -> dict[str, Any]:
    """CPU seconds of each way, and their ratios within each repeat."""
    ways = [race.plugin, race.client, race.prefill, *([race.sequential] if sequential else [])]
    seconds: dict[str, list[float]] = {way.__name__: [] for way in ways}
    for repeat in range(repeats):
        prompt = race.prompt()
        for way in ways[repeat % len(ways) :] + ways[: repeat % len(ways)]:
            seconds[way.__name__].append(cpu_seconds(way, prompt))
        print({name: round(values[-1], 2) for name, values in seconds.items()}, flush=True)
    bound = race.tokens / race.critical_path
    found: dict[str, Any] = {
        "branches": race.branches,
        "length": race.length,
        "tokens": race.tokens,
        "critical_path": race.critical_path,
        "bound": round(bound, 3),
        "repeats": repeats,
        "cpu_seconds": {name: spread(values) for name, values in seconds.items()},
    }
    ratios = {name: [b / a for a, b in zip(seconds["plugin"], seconds[name], strict=True)] for name in seconds}
    found["client / plugin"] = spread(ratios["client"])
    found["prefill / plugin"] = spread(ratios["prefill"])
    if sequential:
        found["sequential / plugin"] = spread(ratios["sequential"])
        found["share of bound"] = spread([ratio / bound for ratio in ratios["sequential"]])
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--case", nargs="*", choices=[f"{n}x{length}" for n, length, *_ in CASES])
    parser.add_argument("--repeats", type=int, help="instead of the case's own number")
    arguments = parser.parse_args()
    multiverse_vllm.enable()
    with tempfile.TemporaryDirectory() as path:
        parameters = make_model(Path(path))
        llm = make_engine(path, arguments.dtype, 3072)
        for branches, length, repeats, sequential in CASES:
            name = f"{branches}x{length}"
            if arguments.case and name not in arguments.case:
                continue
            race = Race(llm, branches, length, Random(branches * length))
            race.plugin(race.prompt())  # once for nothing
            found = measure(race, arguments.repeats or repeats, sequential)
            command = f"benchmarks/vllm_speed.py --dtype {arguments.dtype} --case {name}"
            head = {"command": command, "parameters": parameters, "prompt": PROMPT, "conclusion": CONCLUSION}
            add_results(RESULTS, {f"{name} {arguments.dtype}": head | found | {"machine": facts()}})
            print(name, arguments.dtype, found, flush=True)


if __name__ == "__main__":
    main()
