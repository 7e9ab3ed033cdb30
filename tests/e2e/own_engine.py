"""An engine in this process, as `multiverse train` makes it, under two weights. Usage: own_engine.py HOST PATHS"""

from __future__ import annotations

import json
import sys
from random import Random
from typing import Any

import torch

from multiverse import bind
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse.oracle import load
from multiverse.training.grpo.engines import Sampling, connect
from multiverse.training.grpo.settings import Engine
from multiverse.training.rollouts import Reader
from multiverse.training.rollouts.batch import mismatch

OPTIONS: dict[str, dict[str, Any]] = {
    "vllm": {"max_model_len": 1024, "block_size": 32, "enforce_eager": True, "num_gpu_blocks_override": 512},
    "sglang": {"device": "cpu", "attention_backend": "multiverse", "page_size": 1, "max_total_tokens": 16384},
}


def main(host: str, *paths: str) -> None:
    torch.set_num_threads(1)
    models = {path: load(path) for path in paths}
    tokenizer = models[paths[0]][1]
    reader = Reader(bind("multiverse", tokenizer), 0.9)
    engine = connect(Engine(host, options={"dtype": "float32", **OPTIONS[host]}), paths[0], reader)  # type: ignore[arg-type]
    prompts = [tokenizer.encode(turn(generate(Random(seed), "flat", 3, held_out=True))) for seed in (3, 4)]
    told = []
    for number, (path, (model, _)) in enumerate(models.items()):
        engine.load(path, f"step {number}")
        groups = engine.answer(prompts, Sampling(3, 0.9, 120, 7))
        found = [one for group in groups for one in group]
        told.append(
            {
                "versions": sorted({str(version) for one in found for version in one.document("versions")}),
                "prompts": [
                    [one.prompt_ids == prompt for one in group] for group, prompt in zip(groups, prompts, strict=True)
                ],
                "branches": max(len(one.strands) - 1 for one in found),
                "difference": mismatch(model, found),
            }
        )
    print(json.dumps(told))


if __name__ == "__main__":  # engines start processes that import this file
    main(*sys.argv[1:])
