"""What a recipe says under `grpo`: whose answers, how many, what they are worth, and how much is learnt from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from multiverse.errors import TrainingError


@dataclass(frozen=True)
class Engine:
    """Where answers are decoded.

    Attributes:
        host: `vllm` or `sglang`, with the plugin.
        url: of a running server, without `/v1`; else the engine runs in this process.
        model: as the server calls it; it is asked if not given.
        serve: command that starts the server at `url`, as typed in a shell; it is ended with the run.
        environment: variables for that command; those that are set already win.
        options: of vLLM's `LLM` or SGLang's `Engine`, in this process.
    """

    host: Literal["vllm", "sglang"]
    url: str | None = None
    model: str | None = None
    serve: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.url is None and (self.serve or self.model):
            raise TrainingError("engine: `serve` and `model` are of a server, say at which `url`")
        if self.url is not None and self.options:
            raise TrainingError("engine: `options` are of an engine in this process, leave `url` out")


@dataclass(frozen=True)
class Term:
    """One of the rewards that are added up.

    Attributes:
        name: `answer`, `well_formed`, `shorter`, or a Python callable as `module:function` (see `rewards`).
        weight: what it is multiplied by.
        options: keyword arguments of the callable.
    """

    name: str
    weight: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HeldOut:
    """Problems that are answered now and then and never learnt from.

    Attributes:
        path: a source as in `data`; a problem is worth a block where its `parallel` differs from its `sequential`.
        limit: use only so many of them.
        every: steps between two times; also before the first step and after the last.
        temperature: 0 is greedy.
    """

    path: str
    limit: int | None = None
    every: int = 10
    temperature: float = 0.0


@dataclass(frozen=True)
class Grpo:
    """Group relative policy optimisation (arXiv 2402.03300).

    Attributes:
        engine: where answers are decoded.
        rewards: what an answer is worth: a weighted sum.
        steps: how often the engine is asked.
        prompts: per step.
        answers: to each prompt, a group.
        temperature: of sampling.
        max_tokens: of an answer, over all branches.
        passes: updates of the weights per step, all over the same answers.
        clip, clip_high: how far below and above 1 a token's ratio of new to old probability still counts; both alike
            if only `clip` is given.
        kl: weight of the divergence from the model the run began with.
        scale: divide advantages by the group's standard deviation.
        share: compute a group's prompt, and whatever its answers begin with in common, once.
        grader: how `answer` compares: see `multiverse.evaluation.grading`.
        held_out: problems to measure on.
    """

    engine: Engine
    rewards: list[Term]
    steps: int = 100
    prompts: int = 8
    answers: int = 8
    temperature: float = 1.0
    max_tokens: int = 1024
    passes: int = 1
    clip: float = 0.2
    clip_high: float | None = None
    kl: float = 0.0
    scale: bool = True
    share: bool = True
    grader: Literal["math", "choice", "exact"] = "math"
    held_out: HeldOut | None = None

    def __post_init__(self) -> None:
        least = {"steps": 1, "prompts": 1, "answers": 2, "max_tokens": 1, "passes": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise TrainingError(f"grpo: {name}: must be at least {bound}, is {getattr(self, name)}")
        if self.temperature <= 0:
            raise TrainingError(f"grpo: temperature: must be above 0, is {self.temperature}: greedy answers are one")
        if not 0 < self.clip < 1 or self.kl < 0:
            raise TrainingError(f"grpo: clip must be between 0 and 1 and kl not below 0, are {self.clip}, {self.kl}")

    @property
    def upper_clip(self) -> float:
        """How far above 1 a ratio counts."""
        return self.clip if self.clip_high is None else self.clip_high
