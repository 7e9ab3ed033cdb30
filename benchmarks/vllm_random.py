"""What vllm_speed and vllm_plain time: a random Qwen3 of about 100 M parameters inside vLLM, on one thread.

The model is made on the fly. Its words don't matter: lengths are forced, and tags are never sampled.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}

import torch
from vllm import LLM, SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

CLOSE_AFTER = "close_after"
"""Key in a request's `extra_args`: `[length, token]`, the token that it samples once it has sampled `length` others."""


class CloseAfter(LogitsProcessor):
    """Forces the length of branches. It costs every way of decoding the same."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:  # noqa: ARG002
        self._rows: dict[int, tuple[int, int, list[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        def follow(params: Any, _prompt: list[int] | None, output: list[int]) -> tuple[int, int, list[int]] | None:
            wanted = (params.extra_args or {}).get(CLOSE_AFTER)
            return wanted and (*wanted, output)

        process_dict_updates(self._rows, batch_update, follow)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        for row, (length, token, output) in self._rows.items():
            if len(output) == length:
                logits[row] = -torch.inf
                logits[row, token] = 0.0
        return logits


def make_engine(path: str, dtype: str, max_model_len: int) -> LLM:
    """The model in vLLM with KV blocks of 32 tokens and vLLM's own defaults for all that is not said here."""
    torch.set_num_threads(1)
    return LLM(
        path,
        dtype=dtype,
        block_size=32,
        max_num_seqs=64,
        enforce_eager=True,
        max_model_len=max_model_len,
        logits_processors=[CloseAfter],
    )


def generate(llm: LLM, prompts: Sequence[list[int]], **sampling: Any) -> list[Any]:
    """Decode greedily past any end-of-sequence; vLLM's outputs."""
    inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
    parameters = SamplingParams(**{"temperature": 0.0, "ignore_eos": True} | sampling)
    return list(llm.generate(inputs, parameters, use_tqdm=False))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {
        "median": round(statistics.median(values), 4),
        "least": round(min(values), 4),
        "most": round(max(values), 4),
    }


def add_results(path: Path, results: dict[str, Any]) -> None:
    """Add to the JSON file at `path`, whose other figures stay."""
    path.parent.mkdir(exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | results, indent=1) + "\n")
