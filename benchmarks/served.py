"""A fine-tuned model inside vLLM on this CPU: answers, log-probabilities against training, time at batch 1.

    .venvs/vllm/bin/python benchmarks/served.py MODEL HELD_OUT.jsonl --n 100 --time 20

Run by hand: it needs a model that was trained here (docs/training.md). Prints and optionally writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}

import torch
from vllm import LLM, SamplingParams

import multiverse_vllm
from multiverse.binding import bind, detect
from multiverse.oracle import load
from multiverse.parser import parse_ids
from multiverse.training.agreement import disagreement
from multiverse.training.encode import render_prompt
from multiverse.training.evaluate import MAX_TOKENS, load_examples


def parameters(enabled: bool = True) -> SamplingParams:
    """Greedy, with log-probabilities; forking or not."""
    options = {"multiverse": {"enabled": enabled}}
    return SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS, logprobs=1, extra_args=options)


def answer(llm: LLM, prompts: list[list[int]], enabled: bool = True) -> list[tuple[list[int], list[float | None]]]:
    """Ids and log-probabilities of every answer; tokens that the engine wrote itself are reported with 0."""
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], parameters(enabled), use_tqdm=False)
    found = []
    for output in outputs:
        ids, entries = list(output.outputs[0].token_ids), output.outputs[0].logprobs or []
        values = [entry[token].logprob for token, entry in zip(ids, entries, strict=True)]
        found.append((ids, [value if value < 0 else None for value in values]))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--n", type=int, default=100, help="examples (default: %(default)s)")
    parser.add_argument("--time", type=int, default=20, help="of those with blocks, how many to time (default: 20)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    multiverse_vllm.enable()
    torch.set_num_threads(1)
    llm = LLM(options.model, dtype="float32", max_model_len=2048, block_size=32, max_num_seqs=32, enforce_eager=True)
    model, tokenizer = load(options.model)
    examples = load_examples(options.data, tokenizer, options.n)
    prompts = [tokenizer.encode(render_prompt(tokenizer, e.messages), add_special_tokens=False) for e in examples]
    answers = answer(llm, prompts)
    texts = [tokenizer.decode(ids).removesuffix(tokenizer.eos_token) for ids, _ in answers]
    exact = [text.rpartition("Answer:")[2].strip() == e.answer for text, e in zip(texts, examples, strict=True)]
    binding = bind(detect(tokenizer), tokenizer)
    trees = [parse_ids(ids, binding) for ids, _ in answers]
    ids, logprobs = [found for found, _ in answers], [values for _, values in answers]
    figures: dict[str, Any] = {
        "examples": len(examples),
        "exact": sum(exact) / len(exact),
        "with_blocks": sum(bool(tree.blocks) for tree in trees),
        "well_formed": sum(tree.well_formed for tree in trees) / len(trees),
        "disagreement_nats": disagreement(model, tokenizer, examples, ids, logprobs),
    }
    forking = [prompt for prompt, tree in zip(prompts, trees, strict=True) if tree.blocks][: options.time]
    for name, enabled in (("parallel", True), ("sequential", False)):
        wall, cpu, tokens = time.monotonic(), time.process_time(), 0
        for prompt in forking:
            tokens += len(answer(llm, [prompt], enabled)[0][0])
        figures[name] = {"seconds": time.monotonic() - wall, "cpu": time.process_time() - cpu, "tokens": tokens}
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
