"""The engines that are soaked, step by step, behind one interface."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from multiverse.models import TINY


class Kind(NamedTuple):
    """What a client asks for.

    `like` names the kind whose undisturbed answer it has to get, its own if not given. `top_k` 1 makes an answer
    certain that a host would not call greedy: with a seed, or with several answers.
    """

    weight: int
    name: str
    sampling: dict[str, Any]
    like: str = ""
    certain: bool = True


KINDS = [
    Kind(36, "greedy", {}, "logprobs"),
    Kind(8, "logprobs", {"logprobs": 2}),
    Kind(12, "plugin off", {"multiverse": {"enabled": False}}),
    Kind(8, "two branches at once", {"multiverse": {"max_parallel": 2}}, "logprobs"),
    Kind(8, "40 tokens", {"max_tokens": 40}),
    Kind(8, "110 tokens", {"max_tokens": 110}),
    Kind(6, "60 positions", {"multiverse": {"max_critical_path": 60}}),
    Kind(5, "two answers", {"n": 2, "temperature": 1.0, "top_k": 1}, "logprobs"),
    Kind(5, "seed", {"seed": 7, "temperature": 1.0, "top_k": 1}, "logprobs"),
    Kind(4, "sampled", {"seed": 7, "temperature": 1.5, "max_tokens": 200}, certain=False),
]


def with_tree(sampling: dict[str, Any]) -> dict[str, Any]:
    """The same request, whose answer comes with its tree."""
    return sampling | {"multiverse": {"return_tree": True} | sampling.get("multiverse", {})}


@dataclass
class Client:
    """One request. `seen` and `logprobs` by answer; it goes away at step `leaves`, if it still waits then."""

    prompt: int
    kind: Kind
    leaves: int | None
    seen: dict[int, list[int]] = field(default_factory=dict)
    logprobs: list[float] = field(default_factory=list)
    record: dict[str, Any] | None = None


class Output(NamedTuple):
    """What came of one request in a step: by answer, new tokens and their logprobs; its record, if there is one."""

    request: str
    tokens: dict[int, tuple[list[int], list[float]]]
    record: dict[str, Any] | None
    finished: bool


class VLLM:
    """vLLM in this process."""

    name = "vllm"

    def __init__(self, blocks: int, late: bool) -> None:
        from vllm_host import VLLMHost

        self.host: Any = VLLMHost(str(TINY), blocks, late)

    def step(self) -> Iterator[Output]:
        for output in self.host.llm.llm_engine.step():
            tokens = {}
            for choice in output.outputs:
                rows = zip(choice.token_ids, choice.logprobs or (), strict=False)
                tokens[choice.index] = (list(choice.token_ids), [row[token].logprob for token, row in rows])
            yield Output(output.request_id, tokens, output.outputs[0].multiverse, output.finished)

    def leftovers(self) -> dict[str, int]:
        """What scheduler, worker and front end hold, beyond what the suite looks at."""
        engine, scheduler = self.host.llm.llm_engine, self.host.scheduler
        pool, trees = scheduler.kv_cache_manager.block_pool, scheduler.trees
        worker = engine.engine_core.engine_core.model_executor.driver_worker.worker
        return self.host.leftovers() | {
            "references to blocks": sum(block.ref_cnt for block in pool.blocks if not block.is_null),
            "trees": sum(map(len, (trees.preempted, trees.changed, scheduler.memory.partly_preempted))),
            "block tables": len(scheduler.kv_cache_manager.coordinator.single_type_managers[0].req_to_blocks),
            "requests in the worker": len(worker.model_runner.requests) - 1,
            "requests in the front end": len(engine.output_processor.request_states),
        }


class SGLang:
    """SGLang's scheduler in a process of its own, with its leak checks after every step. One answer per request."""

    name = "sglang"

    def __init__(self, blocks: int, late: bool) -> None:
        from sglang_host import SGLangHost

        self.host: Any = SGLangHost(str(TINY), blocks, late)

    def step(self) -> Iterator[Output]:
        for request, tokens in self.host.step().items():
            finished = self.host.finished(request)
            answer = self.host.answer(request) if finished else None
            logprobs = (answer.logprobs or []) if answer else []
            yield Output(request, {0: (tokens, logprobs)}, answer and answer.record, finished)

    def leftovers(self) -> dict[str, int]:
        return dict(self.host.leftovers())
