"""Steps per answer with drafts, with branches, with both and with neither: `benchmarks/drafts.py [--record]`.

With vLLM and the embedded model: held-out problems whose answers hold blocks, all decoded greedily, in batches. An
answer's steps are those of the engine from its first to its last token; no step waits for memory, so they are as many
as if it were alone. With drafts it says the same, and the largest difference of a log-probability is told. Each way has
a process of its own: a drafter that remembers has not seen these answers.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from typing import Any

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCHDYNAMO_DISABLE": "1"}

from figures import record
from vllm import LLM, SamplingParams

import multiverse_vllm
from multiverse.models import TINY
from multiverse.models.task import Problem, stream
from multiverse.models.tokenizer import turn

BATCH = 32
SHARED = {
    "method": "custom_class",
    "model": "multiverse_vllm.worker.drafter.SharedNGrams",
    "num_speculative_tokens": 8,
}


@dataclass
class Found:
    """What came of one way of decoding: by problem, the token ids, their log-probabilities and the steps."""

    ids: list[list[int]]
    values: list[list[float]]
    steps: list[int]
    drafted: int = 0
    accepted: int = 0


def problems(count: int, forks: bool = True) -> list[Problem]:
    """Those whose answers hold blocks, or the others."""
    return list(islice((problem for problem in stream(1) if problem.forks is forks), count))


def decode(count: int, drafts: dict[str, Any] | None, forks: bool) -> Found:
    """Decode so many problems in batches, in an engine that drafts as vLLM's `speculative_config` says."""
    multiverse_vllm.enable()
    llm, found = engine(drafts), Found([], [], [])
    tokenizer = llm.get_tokenizer()
    prompts = [list(tokenizer.encode(turn(problem))) for problem in problems(count)]
    for at in range(0, len(prompts), BATCH):
        for ids, values, steps in _decode_batch(llm, prompts[at : at + BATCH], forks):
            found.ids.append(ids)
            found.values.append(values)
            found.steps.append(steps)
    core: Any = llm.llm_engine.engine_core
    counted = core.engine_core.scheduler.tally.totals
    found.drafted, found.accepted = counted["draft_tokens"], counted["accepted_draft_tokens"]
    return found


def _decode_batch(llm: LLM, prompts: Sequence[list[int]], forks: bool) -> list[tuple[list[int], list[float], int]]:
    parameters = SamplingParams(
        temperature=0, max_tokens=1500, logprobs=0, detokenize=False, extra_args={"multiverse": {"enabled": forks}}
    )
    for number, prompt in enumerate(prompts):
        llm.llm_engine.add_request(str(number), {"prompt_token_ids": prompt}, parameters)
    ended: dict[int, tuple[list[int], list[float], int]] = {}
    step = 0
    while len(ended) < len(prompts):
        step += 1
        for output in llm.llm_engine.step():
            if output.finished:
                said = output.outputs[0]
                values = [entry[token].logprob for token, entry in zip(said.token_ids, said.logprobs, strict=True)]
                ended[int(output.request_id)] = list(said.token_ids), values, step
    return [ended[number] for number in range(len(prompts))]


def engine(drafts: dict[str, Any] | None) -> LLM:
    return LLM(
        str(TINY),
        dtype="float32",
        enforce_eager=True,
        max_model_len=2048,
        max_num_seqs=512,
        max_num_batched_tokens=16384,
        num_gpu_blocks_override=4096,
        block_size=32,
        speculative_config=drafts,
    )


def differ(found: Found, others: Found) -> float:
    """The largest difference of a log-probability; what is said has to be the same."""
    assert found.ids == others.ids, "drafts changed an answer"
    pairs = zip(found.values, others.values, strict=True)
    return max(abs(a - b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))


def main() -> None:
    """Decode, print, write figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=300, help="(default: %(default)s)")
    parser.add_argument("--drafts", type=json.loads, default=SHARED, help="as vLLM's --speculative-config, in JSON")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/figures.json")
    options = parser.parse_args()
    ways = [(drafts, forks) for drafts in (False, True) for forks in (False, True)]
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        made = [
            pool.submit(decode, options.problems, options.drafts if drafts else None, forks) for drafts, forks in ways
        ]
        found = {way: one.result() for way, one in zip(ways, made, strict=True)}
    steps = {way: sum(one.steps) for way, one in found.items()}
    difference = max(differ(found[True, forks], found[False, forks]) for forks in (False, True))
    both = found[True, True]
    print(f"{options.problems} answers; steps: plain {steps[False, False]}, with drafts {steps[True, False]}, "
          f"forking {steps[False, True]}, both {steps[True, True]}")  # fmt: skip
    print(f"of {both.drafted} drafted tokens {both.accepted} were accepted; largest difference {difference:.2g}")
    figures = {
        "drafts_steps_to_forking": steps[True, True] / steps[False, True],
        "drafts_steps_to_plain": steps[True, True] / steps[False, False],
        "drafts_max_difference": difference,
    }
    for name, value in figures.items():
        print(f"{name} {value:.3g}")
        if options.record:
            record(name, float(f"{value:.3g}"), "python benchmarks/drafts.py --record")


if __name__ == "__main__":
    main()
