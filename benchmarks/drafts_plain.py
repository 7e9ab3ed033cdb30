"""What the plugin costs traffic without blocks that drafts: `benchmarks/drafts_plain.py [--record]`.

Problems without blocks, in vLLM with the embedded model and n-gram drafts, with the plugin and without. Machine
instructions of the whole engine are counted, its model among them, by callgrind in a process of each: by time the
plugin's share drowns in what differs between two processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from drafts import SHARED, engine, problems
from figures import record
from meter import Meter, under_callgrind
from vllm import SamplingParams

import multiverse_vllm
from multiverse.models.tokenizer import turn

PROBLEMS, TOKENS = 8, 100
WAYS = ("with", "without")


def cost(plugin: bool) -> tuple[float, int]:
    """In this process: what answering takes an engine that drafts, and how many tokens that is."""
    if plugin:
        multiverse_vllm.enable()
    llm = engine(SHARED)
    tokenizer = llm.get_tokenizer()
    prompts = [{"prompt_token_ids": tokenizer.encode(turn(problem))} for problem in problems(PROBLEMS, forks=False)]
    parameters = SamplingParams(temperature=0, max_tokens=TOKENS, detokenize=False)
    llm.generate(prompts[:2], parameters, use_tqdm=False)  # what is made once is made now
    meter = Meter()
    meter.start()
    answers = llm.generate(prompts, parameters, use_tqdm=False)
    return meter.stop(), sum(len(answer.outputs[0].token_ids) for answer in answers)


def measure(way: str) -> tuple[float, int]:
    """The same in a process of its own, in instructions."""
    command, more = under_callgrind([sys.executable, __file__, "--way", way])
    environment = {
        **os.environ,
        **more,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
    }
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = [line[7:] for line in run.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        sys.exit(run.stderr)
    amount, tokens = json.loads(found[0])
    print(f"{way} the plugin: {amount / tokens:,.0f} instructions per token, {tokens} tokens", flush=True)
    return amount, tokens


def main() -> None:
    """Measure in both ways, print, write the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=WAYS, help="only this one, in this process; for use by this program")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/figures.json")
    options = parser.parse_args()
    if options.way:
        print("RESULT", json.dumps(cost(options.way == "with")), flush=True)
        return
    (ours, said), (theirs, expected) = map(measure, WAYS)
    assert said == expected, "the plugin changed an answer"
    ratio = theirs / ours
    print(f"throughput with the plugin, of that without: {ratio:.4f}")
    if options.record:
        record("drafts_plain_ratio", round(ratio, 3), "python benchmarks/drafts_plain.py --record")


if __name__ == "__main__":
    main()
