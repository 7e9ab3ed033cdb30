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
        first: others build on it.
    """

    name: str
    what: str
    environment: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    first: bool = False


@dataclass(frozen=True)
class Stage:
    """Checks that fit into four minutes together; each writes its result when it has it.

    Attributes:
        timed: measures time, so nothing else may run.
    """

    name: str
    title: str
    checks: Callable[[Setting], list[Check]]
    timed: bool = False


def _pytest(*arguments: str) -> tuple[str, ...]:
    return ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not long", *arguments)


def _kernels(setting: Setting) -> list[Check]:
    """With what there is: any environment with torch will do."""
    place = next((name for name in ("kernels", "sglang", "vllm", "core") if name in setting.pythons), "core")
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


def _operators(host: str) -> Check:
    what = f"compiled operators of {host} load, and compute what torch does"
    return Check("operators", what, host, ("tools/gpu/operators.py", host), (host,), first=True)


def _vllm(setting: Setting) -> list[Check]:
    few = ("-k", "are_the_oracles") if setting.rehearsed else ()
    runner = "CUDA graphs, asynchronous: answers are the oracle's"
    first = _host("vllm", "v1", f"vLLM's V1 runner, {runner}", *few, VLLM_USE_V2_MODEL_RUNNER="0")
    if setting.rehearsed:  # V2 needs Triton's compiler
        return [_operators("vllm"), first]
    files = (f"tests/conformance/test_{name}.py" for name in ("prompt_logprobs", "stops", "logprobs", "life"))
    more, needs = _pytest("-k", "ahead", *files), ("vllm", "pytest", "hypothesis")
    halves = "vLLM in bfloat16 with the attention it chooses: nearly all answers are the oracle's in float32"
    once = "vLLM: attention that reads shared prefixes once, both runners"
    return [
        _operators("vllm"),
        Check("shared-prefix", once, "vllm", _pytest("tests/vllm_workers/test_shared_prefix.py"), needs),
        _host("vllm", "v2", f"vLLM's V2 runner, {runner}", VLLM_USE_V2_MODEL_RUNNER="1"),
        first,
        Check("bfloat16", halves, "vllm", ("tools/gpu/halves.py",), ("vllm",)),
        Check(
            "more",
            "the same, V2: scores of prompts, stops, aborts",
            "vllm",
            more,
            needs,
            {"VLLM_USE_V2_MODEL_RUNNER": "1"},
        ),
    ]


def _sglang(setting: Setting) -> list[Check]:
    few = ("-k", "are_the_oracles and ahead") if setting.rehearsed else ()
    some = ("-k", "one_forward") if setting.rehearsed else ("-k", "one_forward or segments_hold or masks_take")
    files = [f"tests/conformance/test_sglang_prefill{more}.py" for more in ("", "_way")]
    prefill, needs = _pytest(*files, *some), ("sglang", "pytest")
    found = [
        _host("sglang", "answers", "SGLang, CUDA graphs, overlap: answers are the oracle's", *few),
        Check("prefill", "SGLang: blocks of prompts in one forward", "sglang", prefill, needs),
    ]
    if setting.rehearsed:
        return found
    files = (f"tests/conformance/test_sglang_{name}.py" for name in ("attention", "around", "retract", "pages"))
    around = "SGLang: attention that reads shared prefixes once; retraction; pages of 16"
    return [_operators("sglang"), *found, Check("attention", around, "sglang", _pytest(*files), needs)]


def _speed(setting: Setting, host: str, size: str = "12") -> list[Check]:
    """Figures of one start of servers; of a shared prefix `multiverse bench`, whose report is the end of its output."""
    size = "small" if setting.rehearsed else size
    what = "share of the bound by width; spliced or prefilled again; turns; plain traffic, with the plugin and without"
    folder, needs = str(setting.output / f"speed-{host}-{size}"), (host, "matplotlib", "transformers")
    found = [Check(f"speed-{size}", what, host, ("tools/gpu/speed.py", host, folder, "--size", size), needs)]
    if host != "sglang" or size != "12":
        return found
    made = ("benchmarks/random_model.py", MODEL, "--hidden", "3072", "--layers", "12", "--positions", "131072")
    bench = (
        *("-m", "multiverse", "bench", "--host", host, "--model", MODEL, "-o", str(setting.output / "bench-prefix")),
        *("--only", "prefix", "--repeats", "2", "--widths", "4,16,64", "--prefixes", "2048,16384"),
        *("--attention-backend", "multiverse-triton", "--context-length", "32768", "--max-total-tokens", "100000"),
        *("--dtype", "bfloat16", "--sampling-backend", "pytorch", "--skip-server-warmup"),
    )
    shared = "decode steps behind a shared prefix, read once and by each"
    return [
        *found,
        Check("model", "a random model, written", host, made, needs),
        Check("prefix", shared, host, bench, needs),
    ]


def _large(setting: Setting, host: str) -> list[Check]:
    return [] if setting.rehearsed else _speed(setting, host, "32b")


STAGES = (
    Stage("kernels", "attention kernels against float64", _kernels),
    Stage("moves", "KV moves in the layouts of attention backends", _moves),
    Stage("vllm", "a small model in vLLM", _vllm),
    Stage("sglang", "a small model in SGLang", _sglang),
    Stage("speed-vllm", "speed of vLLM with branches", lambda setting: _speed(setting, "vllm"), timed=True),
    Stage("speed-sglang", "speed of SGLang with branches", lambda setting: _speed(setting, "sglang"), timed=True),
    Stage("large-vllm", "speed of vLLM at the shape of Qwen3-32B", lambda setting: _large(setting, "vllm"), timed=True),
    Stage("large-sglang", "speed of SGLang at the same", lambda setting: _large(setting, "sglang"), timed=True),
)
