"""What the plugin costs traffic that has no blocks: the same requests to an engine with it and to one without it.

Processes on one thread each, one engine each, which are asked in turn. What is timed is the CPU time that a process
takes for a batch of plain requests (to the one with the plugin they may fork at any time; random weights don't), and
within it that of the functions in which the plugin works: their difference divided by the whole shows costs that are
far smaller than the noise of the whole, most of which is how fast the same kernels happen to run in a process. Adds to
benchmarks/results/vllm_speed.json. Run with `make bench-vllm`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

from machine import facts
from random_model import make_model
from vllm_random import add_results, generate, make_engine, spread

from multiverse.models import TINY

RESULTS = Path(__file__).parent / "results" / "vllm_speed.json"
PROMPT, REPLY = 32, 32
BATCHES = {1: 6, 16: 5, 64: 4}
"""Repeats by batch size, in every round."""
TOUCHED = {
    "scheduler": ("add_request", "schedule", "update_from_output"),
    "input_processor": ("process_inputs",),
    "output_processor": ("process_outputs",),
    "model_runner": ("_update_states", "_preprocess"),
}
"""All of an engine that the plugin works in, by part."""


class Engine:
    """The worker's side: answers each line `batch seed` with CPU seconds, as JSON."""

    def __init__(self, model: str, dtype: str, plugin: bool) -> None:
        if plugin:
            import multiverse_vllm

            multiverse_vllm.enable()
        self.llm = make_engine(model, dtype, 1024)
        self.scheduler: Any = self.llm.llm_engine.engine_core.engine_core.scheduler
        self.touched = 0.0
        core = self.llm.llm_engine.engine_core.engine_core
        parts = {
            "scheduler": self.scheduler,
            "input_processor": self.llm.llm_engine.input_processor,
            "output_processor": self.llm.llm_engine.output_processor,
            "model_runner": core.model_executor.driver_worker.worker.model_runner,
        }
        for part, names in TOUCHED.items():
            for name in names:
                self._time(parts[part], name)
        assert hasattr(self.scheduler, "_members") == plugin

    def _time(self, part: Any, name: str) -> None:
        method = getattr(part, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.touched += time.thread_time() - start

        setattr(part, name, timed)

    def serve(self) -> None:
        for line in sys.stdin:
            batch, seed = map(int, line.split())
            rng = Random(seed)
            prompts = [[rng.randrange(100) for _ in range(PROMPT)] for _ in range(batch)]
            self.touched, start = 0.0, time.process_time()
            generate(self.llm, prompts, max_tokens=REPLY * (4 if batch == 1 else 1))
            whole = time.process_time() - start
            assert not hasattr(self.scheduler, "tally") or not self.scheduler.tally.totals["forks"]
            print("RESULT", json.dumps([whole, self.touched]), flush=True)


class Worker:
    """The parent's side of an engine in another process."""

    def __init__(self, model: str, dtype: str, plugin: str) -> None:
        command = [sys.executable, __file__, "--worker", plugin, "--model", model, "--dtype", dtype]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, batch: int, seed: int) -> tuple[float, float]:
        """CPU seconds of a batch: all, and those of what the plugin touches."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(batch, seed, file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("RESULT "):
                whole, touched = json.loads(line.removeprefix("RESULT "))
                return whole, touched
        raise RuntimeError("the engine has died")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def ask_in_turn(workers: list[Worker], batch: int, repeats: int) -> list[list[tuple[float, float]]]:
    """By worker, what it took for the same batches; who comes first changes. The first batch is for warming up."""
    found: list[list[tuple[float, float]]] = [[] for _ in workers]
    for repeat in range(repeats + 1):
        at = repeat % len(workers)
        for which in [*range(at, len(workers)), *range(at)]:
            seconds = workers[which].ask(batch, repeat + 1)
            if repeat:
                found[which].append(seconds)
    return found


def compare(on: list[tuple[float, float]], off: list[tuple[float, float]], batch: int) -> dict[str, float]:
    """Throughput with the plugin as a share of that without it, in two ways."""
    whole_off = statistics.median(whole for whole, _ in off)
    touched_on, touched_off = (statistics.median(part for _, part in side) for side in (on, off))
    tokens = batch * REPLY * (4 if batch == 1 else 1)
    return {
        "off / on": statistics.median(b[0] / a[0] for a, b in zip(on, off, strict=True)),
        "touched_us_per_token_off": round(1e6 * touched_off / tokens, 1),
        "touched_us_per_token_on": round(1e6 * touched_on / tokens, 1),
        "by what is touched": round(whole_off / (whole_off + touched_on - touched_off), 4),
    }


def measure(model: str, dtype: str, batches: list[int], rounds: int) -> dict[int, list[dict[str, float]]]:
    """By batch size, a comparison per round. Every round starts new processes: two alike can differ by 3 %, which is
    why a second one without the plugin is asked too: `control` is what nothing looks like."""
    found: dict[int, list[dict[str, float]]] = {batch: [] for batch in batches}
    kinds = ("on", "off", "off")
    for number in range(rounds):
        started = {
            at % 3: Worker(model, dtype, kinds[at % 3]) for at in range(number, number + 3)
        }  # each comes first once
        workers = [started[at] for at in range(3)]
        for batch in batches:
            on, off, again = ask_in_turn(workers, batch, BATCHES[batch])
            control = statistics.median(b[0] / a[0] for a, b in zip(again, off, strict=True))
            found[batch].append(compare(on, off, batch) | {"control": control})
            print(f"round {number + 1} of {rounds}, batch {batch}:", found[batch][-1], flush=True)
        for worker in workers:
            worker.close()
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--model", help="a model of your own; `tiny` is the embedded one, which takes 5 ms a step")
    parser.add_argument("--batch", type=int, nargs="*", choices=list(BATCHES), default=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=3, help="how often to start anew")
    parser.add_argument("--worker", choices=["on", "off"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        Engine(arguments.model, arguments.dtype, arguments.worker == "on").serve()
        return
    with tempfile.TemporaryDirectory() as path:
        if not arguments.model:
            make_model(Path(path))
        model = {None: path, "tiny": str(TINY)}.get(arguments.model, arguments.model)
        found = measure(model, arguments.dtype, arguments.batch, arguments.rounds)
    for batch, rounds in found.items():
        result = {name: spread([entry[name] for entry in rounds]) for name in rounds[0]}
        command = " ".join(["benchmarks/vllm_plain.py", *sys.argv[1:]])
        head = {"command": command, "batch": batch, "rounds": len(rounds), "repeats per round": BATCHES[batch]}
        name = f"plain {arguments.model or '100M'} {batch} {arguments.dtype}"
        add_results(RESULTS, {name: head | result | {"machine": facts()}})
        print(name, result, flush=True)


if __name__ == "__main__":
    main()
