"""Where answers come from: a running server over HTTP, or an engine in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from multiverse.errors import TrainingError
from multiverse.training.grpo.served import Served
from multiverse.training.grpo.settings import Engine
from multiverse.training.rollouts import Reader, Rollout


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled: `count` to each prompt, of `max_tokens` at most; `seed` is the first one's."""

    count: int
    temperature: float
    max_tokens: int
    seed: int


class Answering(Protocol):
    """What a trainer needs of an engine."""

    def load(self, path: str, version: str) -> None:
        """Take the weights of the checkpoint at `path`, which are called `version` from now on."""

    def answer(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Rollout]]:
        """A group of answers to each of the prompts, which are token ids."""


class ServedAnswers:
    """A server."""

    def __init__(self, server: Served, reader: Reader) -> None:
        self.server, self.reader = server, reader

    def load(self, path: str, version: str) -> None:
        self.server.load(path, version)

    def answer(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Rollout]]:
        bodies = [
            {
                "prompt": list(prompt),
                "n": sampling.count,
                "temperature": sampling.temperature,
                "max_tokens": sampling.max_tokens,
                "seed": sampling.seed + number * sampling.count,
            }
            for number, prompt in enumerate(prompts)
        ]
        return [self.reader.response(answer) for answer in self.server.answers(bodies)]


class VLLM:
    """vLLM's `LLM` in this process. Weights are changed while nothing runs: only the prefix cache has to be dropped."""

    def __init__(self, model: str, options: dict[str, Any], reader: Reader) -> None:
        import multiverse_vllm

        multiverse_vllm.enable()
        from vllm import LLM

        self.llm = LLM(model, logprobs_mode="processed_logprobs", **options)
        self.reader = reader

    def load(self, path: str, version: str) -> None:
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": path})
        self.llm.reset_prefix_cache()
        self.llm.llm_engine.set_weight_version(version)

    def answer(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Rollout]]:
        from vllm import SamplingParams

        parameters = [
            SamplingParams(
                n=sampling.count,
                temperature=sampling.temperature,
                max_tokens=sampling.max_tokens,
                seed=sampling.seed + number * sampling.count,
                logprobs=0,
                extra_args={"multiverse": {"return_tree": True}},
            )
            for number in range(len(prompts))
        ]
        inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return [self.reader.vllm(output) for output in self.llm.generate(inputs, parameters, use_tqdm=False)]


class SGLang:
    """SGLang's `Engine` in this process; it has no seeds."""

    def __init__(self, model: str, options: dict[str, Any], reader: Reader) -> None:
        import multiverse_sglang

        multiverse_sglang.enable()
        import sglang

        self.engine = sglang.Engine(model_path=model, **options)
        self.reader = reader

    def load(self, path: str, version: str) -> None:
        from sglang.srt.managers.io_struct import UpdateWeightFromDiskReqInput

        # Engine.update_weights_from_disk is these lines, but it can't name the version
        asked = UpdateWeightFromDiskReqInput(model_path=path, weight_version=version)
        manager = self.engine.tokenizer_manager
        done = self.engine.loop.run_until_complete(manager.update_weights_from_disk(asked, None))
        if not done[0]:
            raise TrainingError(f"SGLang did not take the weights of {path}: {done[1]}")

    def answer(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Rollout]]:
        each = [(str(at), list(prompt)) for at, prompt in enumerate(prompts) for _ in range(sampling.count)]
        parameters = {
            "temperature": sampling.temperature,
            "max_new_tokens": sampling.max_tokens,
            "custom_params": {"multiverse": {"return_tree": True}},
        }
        asked = [ids for _, ids in each]
        outputs = self.engine.generate(input_ids=asked, sampling_params=parameters, return_logprob=True)
        found = [self.reader.sglang(out, ids, group) for out, (group, ids) in zip(outputs, each, strict=True)]
        return [found[at : at + sampling.count] for at in range(0, len(found), sampling.count)]


def connect(engine: Engine, model: str, reader: Reader) -> Answering:
    """The engine that a recipe names, with `model` if it is in this process."""
    if engine.url is not None:
        return ServedAnswers(Served(engine.url, engine.host, engine.model), reader)
    return (VLLM if engine.host == "vllm" else SGLang)(model, engine.options, reader)
