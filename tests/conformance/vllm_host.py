"""vLLM, in this process, as the suite sees it."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from typing import Any

from device import ON_CPU

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "MULTIVERSE_INTEGRITY_INTERVAL": "20",
}
if ON_CPU:
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
else:
    os.environ["TRITON_F32_DEFAULT"] = "ieee"  # TRITON_ATTN takes TF32 for float32 else: three digits

from answer import Answer
from late_executor import LateExecutor
from own_calls import OwnCalls
from vllm import LLM, SamplingParams
from vllm.sampling_params import RequestOutputKind

import multiverse_vllm

multiverse_vllm.enable()


PLENTY = 2048
"""Blocks for 64 requests of full length; else vLLM fills a whole GB with zeros."""
BESIDE_OTHERS = {"gpu_memory_utilization": 0.05, "kv_cache_memory_bytes": 1 << 30}
"""On a GPU, several engines at a time: none measures what is free, and none takes what is left."""
WANTED: dict[str, Any] = json.loads(os.environ.get("MULTIVERSE_TEST_VLLM", "{}"))
"""vLLM's settings for every engine, by whoever starts the tests."""


class VLLMHost:
    """One `LLM`. `blocks` makes memory scarce, `late` schedules a step ahead; `settings` are vLLM's, `options` ours."""

    penalty_lag = 0
    head_tokens = 2

    def __init__(
        self,
        model: str,
        blocks: int | None = None,
        late: bool = False,
        settings: dict[str, Any] | None = None,
        **options: str,
    ) -> None:
        os.environ |= {f"MULTIVERSE_{name.upper()}": value for name, value in options.items()}
        defaults: dict[str, Any] = {"max_model_len": 1024, "block_size": 32, "max_num_seqs": 64, "max_logprobs": -1}
        defaults |= {"dtype": "float32", "enforce_eager": ON_CPU, "num_gpu_blocks_override": blocks or PLENTY}
        if not ON_CPU:  # vLLM's own executor is late by itself
            defaults |= {"async_scheduling": late, **BESIDE_OTHERS, **WANTED}
        elif late:
            defaults["distributed_executor_backend"] = LateExecutor
        try:
            self.llm = LLM(model, **defaults | (settings or {}))
        finally:  # an engine that is refused leaves the next one nothing
            for name in options:
                del os.environ[f"MULTIVERSE_{name.upper()}"]
        self.core: Any = self.llm.llm_engine.engine_core.engine_core
        self.scheduler: Any = self.core.scheduler
        self._ids = itertools.count()
        self._seen: dict[str, int] = {}
        self._scheduled = self.steps = 0
        self._count_scheduled()

    def _count_scheduled(self) -> None:
        """Of what was drafted, only what was accepted."""
        schedule, update = self.scheduler.schedule, self.scheduler.update_from_output

        def counted(*args: Any, **kwargs: Any) -> Any:
            output = schedule(*args, **kwargs)
            self.steps += 1
            self._scheduled += output.total_num_scheduled_tokens
            self._scheduled -= sum(map(len, output.scheduled_spec_decode_tokens.values()))
            return output

        def updated(output: Any, found: Any) -> Any:
            rows = map(found.req_id_to_index.__getitem__, output.scheduled_spec_decode_tokens)
            self._scheduled += sum(max(0, len(found.sampled_token_ids[row]) - 1) for row in rows)
            return update(output, found)

        self.scheduler.schedule, self.scheduler.update_from_output = counted, updated

    def generate(self, prompts: Sequence[list[int]], **sampling: Any) -> list[Answer]:
        inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
        outputs = self.llm.generate(inputs, self._parameters(sampling), use_tqdm=False)
        return [self._answer(output, choice) for output in outputs for choice in output.outputs]

    def generate_each(self, requests: Sequence[tuple[list[int], dict[str, Any]]]) -> list[Answer]:
        inputs = [{"prompt_token_ids": prompt} for prompt, _ in requests]
        parameters = [self._parameters(dict(sampling)) for _, sampling in requests]
        outputs = self.llm.generate(inputs, parameters, use_tqdm=False)
        return [self._answer(output, output.outputs[0]) for output in outputs]

    @staticmethod
    def _parameters(sampling: dict[str, Any]) -> SamplingParams:
        options = sampling.pop("multiverse", None)
        extra = {} if options is None else {"extra_args": {"multiverse": options}}
        return SamplingParams(**{"temperature": 0.0, "max_tokens": 800} | sampling | extra)

    @staticmethod
    def _answer(output: Any, choice: Any) -> Answer:
        ids, values = list(choice.token_ids), None
        if choice.logprobs is not None:
            values = [entry[token].logprob for token, entry in zip(ids, choice.logprobs, strict=True)]
        entries, scores = _plain(choice.logprobs), _plain(output.prompt_logprobs)
        return Answer(ids, values, str(choice.finish_reason), choice.multiverse, entries, scores)

    def start(self, prompt: list[int], **sampling: Any) -> str:
        name = f"request-{next(self._ids)}"
        parameters = self._parameters(sampling)
        parameters.output_kind = RequestOutputKind.DELTA
        self.llm.llm_engine.add_request(name, {"prompt_token_ids": prompt}, parameters)
        return name

    def step(self) -> dict[str, list[int]]:
        return {o.request_id: list(o.outputs[0].token_ids) for o in self.llm.llm_engine.step()}

    def own_calls(self) -> dict[str, int]:
        calls = OwnCalls()
        calls.begin()
        self.step()
        return calls.end()

    def abort(self, request: str) -> None:
        self.llm.llm_engine.abort_request([request])

    def leftovers(self) -> dict[str, int]:
        pool = self.scheduler.kv_cache_manager.block_pool
        return {
            "blocks": pool.num_gpu_blocks - 1 - pool.get_num_free_blocks(),
            "requests": len(self.scheduler.requests),
            "members": len(self.scheduler.trees.members),
            "moves": len(self.scheduler.table.moves),
        }

    def integrity(self) -> list[str]:
        return list(self.scheduler.books.problems())

    def counters(self) -> dict[str, int]:
        return {"scheduled": self._scheduled, **self.scheduler.tally.totals}


def _plain(logprobs: Any) -> Any:
    """vLLM's entries as numbers by token id."""
    if logprobs is None:
        return None
    return [None if entry is None else {t: value.logprob for t, value in entry.items()} for entry in logprobs]
