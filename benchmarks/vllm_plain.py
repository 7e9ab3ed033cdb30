"""What the plugin costs traffic that has no blocks: the same requests to an engine with it and to one without it.

Two processes on one thread each, one engine each, which are asked in turn. What is timed is the CPU time that a process
takes for a batch of plain requests (to the one with the plugin they may fork at any time; random weights don't), and
within it that of the scheduler, which is where the plugin works: its difference divided by the whole shows costs that
are far smaller than the noise of the whole. Adds to benchmarks/results/vllm_speed.json. Run with `make bench-vllm`.
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
from vllm_random import add_results, generate, make_engine, make_model, spread

from multiverse.models import TINY

RESULTS = Path(__file__).parent / "results" / "vllm_speed.json"
PROMPT, REPLY = 32, 32
BATCHES = {1: 12, 16: 10, 64: 6}
"""Repeats by batch size."""
WORK = ("add_request", "schedule", "update_from_output")


class Engine:
    """The worker's side: answers each line `batch seed` with CPU seconds, as JSON."""

    def __init__(self, model: str, dtype: str, plugin: bool) -> None:
        if plugin:
            import multiverse_vllm

            multiverse_vllm.enable()
        self.llm = make_engine(model, dtype, 1024)
        self.scheduler: Any = self.llm.llm_engine.engine_core.engine_core.scheduler
        self.scheduling = 0.0
        for name in WORK:
            self._time(name)
        assert hasattr(self.scheduler, "_members") == plugin

    def _time(self, name: str) -> None:
        method = getattr(self.scheduler, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.scheduling += time.thread_time() - start

        setattr(self.scheduler, name, timed)

    def serve(self) -> None:
        for line in sys.stdin:
            batch, seed = map(int, line.split())
            rng = Random(seed)
            prompts = [[rng.randrange(100) for _ in range(PROMPT)] for _ in range(batch)]
            self.scheduling, start = 0.0, time.process_time()
            generate(self.llm, prompts, max_tokens=REPLY * (4 if batch == 1 else 1))
            whole = time.process_time() - start
            assert not getattr(self.scheduler, "multiverse_counts", {}).get("forks")
            print("RESULT", json.dumps([whole, self.scheduling]), flush=True)


class Worker:
    """The parent's side of an engine in another process."""

    def __init__(self, model: str, dtype: str, plugin: str) -> None:
        command = [sys.executable, __file__, "--worker", plugin, "--model", model, "--dtype", dtype]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, batch: int, seed: int) -> tuple[float, float]:
        """CPU seconds of a batch: all, and the scheduler's."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(batch, seed, file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("RESULT "):
                whole, scheduling = json.loads(line.removeprefix("RESULT "))
                return whole, scheduling
        raise RuntimeError("the engine has died")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(on: Worker, off: Worker, batch: int, repeats: int) -> dict[str, Any]:
    """Throughput with the plugin as a share of that without it, in two ways."""
    pairs = []
    for repeat in range(-1, repeats):
        order = (on, off) if repeat % 2 else (off, on)
        seconds = {worker: worker.ask(batch, repeat + 2) for worker in order}
        if repeat >= 0:
            pairs.append((*seconds[on], *seconds[off]))
    whole_off = statistics.median(pair[2] for pair in pairs)
    extra = statistics.median(pair[1] for pair in pairs) - statistics.median(pair[3] for pair in pairs)
    tokens = batch * REPLY * (4 if batch == 1 else 1)
    return {
        "batch": batch,
        "repeats": repeats,
        "cpu_seconds_off": spread([pair[2] for pair in pairs]),
        "off / on": spread([pair[2] / pair[0] for pair in pairs]),
        "scheduler_us_per_token_off": round(1e6 * statistics.median(pair[3] for pair in pairs) / tokens, 1),
        "scheduler_us_per_token_on": round(1e6 * statistics.median(pair[1] for pair in pairs) / tokens, 1),
        "by scheduler time": round(whole_off / (whole_off + extra), 4),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--model", help="a model of your own; `tiny` is the embedded one, which takes 5 ms a step")
    parser.add_argument("--batch", type=int, nargs="*", choices=list(BATCHES), default=list(BATCHES))
    parser.add_argument("--worker", choices=["on", "off"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        Engine(arguments.model, arguments.dtype, arguments.worker == "on").serve()
        return
    with tempfile.TemporaryDirectory() as path:
        if not arguments.model:
            make_model(Path(path))
        model = {None: path, "tiny": str(TINY)}.get(arguments.model, arguments.model)
        workers = [Worker(model, arguments.dtype, plugin) for plugin in ("on", "off")]
        for batch in arguments.batch:
            found = measure(*workers, batch, BATCHES[batch])
            command = " ".join(["benchmarks/vllm_plain.py", *sys.argv[1:]])
            name = f"plain {arguments.model or '100M'} {batch} {arguments.dtype}"
            add_results(RESULTS, {name: {"command": command} | found | {"machine": facts()}})
            print(name, found, flush=True)
        for worker in workers:
            worker.close()


if __name__ == "__main__":
    main()
