"""What is tried, in which order: stages of commands."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATH = ("", "tests", "tests/conformance", "tests/attention", "benchmarks")
MODEL = "build/gpu-model"


@dataclass(frozen=True)
class Setting:
    """Where it is tried.

    Attributes:
        pythons: by the name of an environment.
    """

    device: str
    output: Path
    pythons: Mapping[str, str]

    @property
    def rehearsed(self) -> bool:
        return self.device == "cpu"

    @property
    def variables(self) -> dict[str, str]:
        """For every check."""
        path = ":".join([*(str(ROOT / folder) for folder in PATH), os.environ.get("PYTHONPATH", "")])
        own = {"PYTHONPATH": path, "MULTIVERSE_TEST_DEVICE": self.device}
        return own | ({"OMP_NUM_THREADS": "1"} if self.rehearsed else {})


@dataclass(frozen=True)
class Check:
    """One command, for the Python of an environment.

    Attributes:
        what: for the page: what passes if it passes.
        needs: modules without which it is left out.
    """

    name: str
    what: str
    environment: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """Checks that fit into four minutes together; each writes its result when it has it."""

    name: str
    title: str
    checks: Callable[[Setting], list[Check]]


def _pytest(*arguments: str) -> tuple[str, ...]:
    return ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not long", *arguments)


def _kernels(setting: Setting) -> list[Check]:
    """With what there is: any environment with torch will do."""
    place = next((name for name in ("sglang", "vllm", "core") if name in setting.pythons), "core")
    planning = "core" if setting.rehearsed and "core" in setting.pythons else place  # FlashInfer's host code is there

    def check(name: str, what: str, *needs: str) -> Check:
        where = place if name == "triton" else planning
        return Check(name, what, where, ("tools/gpu/kernels.py", name, "--device", setting.device), ("torch", *needs))

    found = [
        check("mask", "FlashInfer, boolean masks, against float64", "flashinfer"),
        check("intervals", "FlashInfer, masks as intervals, against float64", "flashinfer"),
        check("triton", "our Triton kernels for shared prefixes, against float64", "triton"),
        check("variant", "the mask of the interval variant, compiled alone, against the dense mask"),
    ]
    if not setting.rehearsed:  # nothing stands in for it
        needs = ("flashinfer", "multiverse.attention.cascade")
        found.insert(3, check("cascade", "FlashInfer's cascade for shared prefixes, against float64", *needs))
    return [*found, check("times", "attention of prompts with blocks, milliseconds by length", "flashinfer")]


def _moves(_: Setting) -> list[Check]:
    layouts = _pytest("tests/vllm_workers/test_layouts.py")
    return [Check("vllm-layouts", "KV moves in every layout of vLLM's backends", "vllm", layouts, ("vllm", "pytest"))]


def _host(host: str, name: str, what: str, *more: str, **variables: str) -> Check:
    """The conformance suite's answers: tokens are the oracle's, logprobs to 1e-4, float32."""
    short = _pytest("tests/conformance/test_answers.py", *more)
    return Check(name, what, host, short, (host, "pytest", "hypothesis"), variables)


def _vllm(setting: Setting) -> list[Check]:
    few = ("-k", "are_the_oracles") if setting.rehearsed else ()
    runner = "CUDA graphs, asynchronous: answers are the oracle's"
    found = [
        _host("vllm", "v2", f"vLLM's V2 runner, {runner}", *few, VLLM_USE_V2_MODEL_RUNNER="1"),
        _host("vllm", "v1", f"vLLM's V1 runner, {runner}", *few, VLLM_USE_V2_MODEL_RUNNER="0"),
    ]
    halves = "vLLM in bfloat16 with the attention it chooses: nearly all answers are the oracle's in float32"
    last = Check("bfloat16", halves, "vllm", ("tools/gpu/halves.py",), ("vllm",))
    return [found[1]] if setting.rehearsed else [*found, last]  # V2 needs Triton's compiler


def _sglang(setting: Setting) -> list[Check]:
    few = ("-k", "are_the_oracles and ahead") if setting.rehearsed else ()
    prefill = _pytest("tests/conformance/test_sglang_prefill.py", "-k", "one_forward or segments_hold or masks_take")
    needs = ("sglang", "pytest")
    return [
        _host("sglang", "answers", "SGLang, CUDA graphs, overlap: answers are the oracle's", *few),
        Check("prefill", "SGLang: blocks of prompts in one forward", "sglang", prefill, needs),
    ]


def _speed(setting: Setting, host: str) -> list[Check]:
    """`multiverse bench` on a random model; its report is the end of its output."""
    small = setting.rehearsed
    size = ("192", "2") if small else ("3072", "12")
    model = ("benchmarks/random_model.py", MODEL, "--hidden", size[0], "--layers", size[1], "--positions", "131072")
    context = {"vllm": "--max-model-len", "sglang": "--context-length"}[host]
    slow = ("--cpu-time", "--dtype", "float32") if small else ("--dtype", "bfloat16")
    if small and host == "sglang":
        slow += ("--attention-backend", "multiverse", "--max-total-tokens", "8192")

    def bench(name: str, what: str, *more: str, length: int = 4096) -> Check:
        folder = str(setting.output / f"bench-{host}-{name}")
        repeats = ("--repeats", "1" if small else "2")
        command = ("-m", "multiverse", "bench", "--host", host, "--model", MODEL, "-o", folder, *repeats, *more)
        return Check(name, what, host, (*command, context, str(2048 if small else length), *slow), (host, "matplotlib"))

    made = Check("model", "a random model, written", host, model, ("transformers",))
    widths, lengths = ("4", ("128",)) if small else ("4,16,64", ("4096", "16384", "57344"))
    tokens = ("--tokens", "64") if small else ("--tokens", "1024")
    found = [made, bench("bound", "share of the bound by width", "--only", "degree", "--widths", widths, *tokens)]
    for prompt in lengths:
        ways = ("--only", "ways", "--widths", "4", "--lengths", "16" if small else "64", "--prompt", prompt)
        what = f"spliced, or prefilled again by a client, behind {prompt} tokens"
        found.append(bench(f"ways-{prompt}", what, *ways, length=65536))
    traffic = ("--batches", "2", "--tokens", "32") if small else ("--batches", "1,64")
    if host == "sglang" and not small:
        own = ("--attention-backend", "multiverse-triton", "--widths", "4,16,64", "--prefixes", "2048,16384")
        what = "decode steps behind a shared prefix, read once and by each"
        found.append(bench("prefix", what, "--only", "prefix", *own, length=32768))
    return [*found, bench("plain", "traffic without blocks, with the plugin and without", "--only", "plain", *traffic)]


STAGES = (
    Stage("kernels", "attention kernels against float64", _kernels),
    Stage("moves", "KV moves in the layouts of attention backends", _moves),
    Stage("vllm", "a small model in vLLM", _vllm),
    Stage("sglang", "a small model in SGLang", _sglang),
    Stage("speed-vllm", "speed of vLLM with branches", lambda setting: _speed(setting, "vllm")),
    Stage("speed-sglang", "speed of SGLang with branches", lambda setting: _speed(setting, "sglang")),
)
