"""What an operator sets for a server and a client for a request: one table of options, the same on every host.

Lowest layer first: defaults, `MULTIVERSE_*` environment variables, `--multiverse-*` flags, fields of a request. A
request may tighten the caps of its server, not loosen them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from multiverse.decoding.budgets import LARGEST, Limits
from multiverse.decoding.controller import Admit, Controller
from multiverse.decoding.shaped import Shape, ShapedController, check_shape
from multiverse.errors import OptionError, shown
from multiverse.serving.admission.policies import EAGER
from multiverse.serving.admission.promises import check_promises
from multiverse.serving.drafts import read_draft_lengths
from multiverse.serving.field import check_branch_sampling, read_field
from multiverse.structure.binding import Binding
from multiverse.structure.layout import Separators

PREFIX = "MULTIVERSE_"
STRUCTURES = ("lenient", "strict")
CAPS = ("max_branches", "max_depth", "max_parallel", "max_critical_path")
_NUMBERS = (*CAPS, "integrity_interval")
_TIMES = ("tpot_slo_ms", "ttft_slo_ms")
_SWITCHES = ("untested_host",)
STREAMS = ("document", "events")
SHAPES = ("refuse", "accept")
PREFILLS = ("auto", "replay", "segments", "mask")
_CHOICES = {
    "structure": STRUCTURES,
    "separators": get_args(Separators),
    "stream": STREAMS,
    "shapes": SHAPES,
    "prefill": PREFILLS,
}
_REQUEST_FIELDS = ("enabled", "structure", *CAPS, "branch_sampling", "stream", "return_tree", "shape", "slo", "drafts")
FLAGS = {
    "dialect": "name of the dialect, or path of one in TOML (default: detected from the tokenizer)",
    "structure": "'strict' lets only tags be sampled that the grammar allows, 'lenient' (default) any",
    "separators": "'overlap' (default) as models are trained, 'advance' as the released engine decoded",
    "max_branches": "most branches of a block; a wider one goes on sequentially (default: 64)",
    "max_depth": "most blocks inside each other; a deeper one goes on sequentially (default: 4)",
    "max_parallel": "branches of a request that may run at once; the others wait their turn (default: all)",
    "max_critical_path": "positions from the first generated token to the last (default: no limit)",
    "stream": "'document' (default) streams the answer in order, 'events' also every branch as it grows",
    "shared_prefix": "'always', 'never', or a table of `multiverse bench` that says where it pays: attention backends"
    " of this plugin read a prefix once that branches share (default: 'always' with SGLang's on a CPU, else 'never')",
    "shapes": "'accept' lets benchmarks say how wide and long blocks are, 'refuse' (default) doesn't",
    "prefill": "how SGLang computes blocks of prompts: 'auto' (default), 'replay', 'segments', or 'mask' (FlashInfer)",
    "admission": "which branches run while others wait: 'eager' (default) all, 'off' one of a request, 'cap:N' N of it,"
    " 'slack' as many as the other requests can spare the time for (vLLM)",
    "tpot_slo_ms": "with 'slack': milliseconds per token that a request may take which names no `slo` (default: any)",
    "ttft_slo_ms": "with 'slack': milliseconds to the first token, likewise (default: any)",
    "drafts": "with speculative decoding: most tokens to draft for a strand, or a table by rows of a step,"
    " '1:4,8:2,32:0' (default: as many as the host drafts)",
    "integrity_interval": "compare the plugin's books with the host's every so many steps (default 0: only when idle)",
    "untested_host": "(no value) run in a release of the host that was never tested with this, if it rehearses well",
}
"""What an operator can set, as `--multiverse-NAME` and as `MULTIVERSE_NAME`, with help texts."""


@dataclass(frozen=True)
class Options:
    """Options of a server, or of one of its requests.

    Attributes:
        enabled: whether blocks are forked; if not, a request is a plain one.
        dialect: name of the dialect, or path of one in TOML; detected from the tokenizer if not given.
        structure: `strict` lets the sampler choose only tags that the grammar allows, `lenient` any.
        separators: whether a separator takes a position of its own (SEMANTICS section 2).
        max_branches, max_depth, max_parallel, max_critical_path: see `Limits`.
        branch_sampling: sampling parameters inside branches, in place of the request's; keys as in `BRANCH_SAMPLING`.
        stream: whether a streamed answer comes with the events of its branches.
        return_tree: whether the answer comes with its tree.
        shared_prefix: when prefixes that branches share are read once (`multiverse.serving.sharing`); the attention
            backend decides if not given.
        shapes: whether a request to this server may say which `shape` its answer has.
        shape: of the answer (`multiverse.decoding.shaped`); the model decides if not given.
        prefill: how SGLang computes prompts that hold blocks; vLLM replays them.
        admission: which branches run in a step (`multiverse.serving.admission.policies`).
        tpot_slo_ms, ttft_slo_ms: what requests are promised, under `slack`; nothing if not given.
        slo: what a request asks for in place of that, under `slack`; keys as in `field.SLO`.
        drafts: most tokens that are drafted for a strand (`multiverse.serving.drafts`); as many as the host does if not
            given.
        integrity_interval: steps between two comparisons of the books while requests run (`serving.integrity`).
        untested_host: whether a release of the host may be tried that the adapter was not tested with.

    Raises:
        OptionError: naming the option, its value and what is allowed.
    """

    enabled: bool = True
    dialect: str | None = None
    structure: str = "lenient"
    separators: Separators = "overlap"
    max_branches: int = 64
    max_depth: int = 4
    max_parallel: int | None = None
    max_critical_path: int | None = None
    branch_sampling: Mapping[str, float] | None = None
    stream: str = "document"
    return_tree: bool = False
    shared_prefix: str | None = None
    shapes: str = "refuse"
    shape: Shape | None = None
    prefill: str = "auto"
    admission: str = EAGER
    tpot_slo_ms: float | None = None
    ttft_slo_ms: float | None = None
    slo: Mapping[str, float] | None = None
    drafts: int | str | None = None
    integrity_interval: int = 0
    untested_host: bool = False

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise OptionError(f"{name} must be {' or '.join(map(repr, choices))}, got {shown(value)}")
        for name in ("enabled", "return_tree"):
            if not isinstance(getattr(self, name), bool):
                raise OptionError(f"{name} must be true or false, got {shown(getattr(self, name))}")
        if self.integrity_interval < 0:
            raise OptionError(f"integrity_interval must be at least 0, got {self.integrity_interval}")
        self.limits()
        for cap in CAPS:
            if (value := getattr(self, cap)) is not None and value > LARGEST:
                raise OptionError(f"{cap} must be at most {LARGEST}, got {shown(value)}")
        check_branch_sampling(self.branch_sampling)
        check_promises(self.admission, self.slo, {name: getattr(self, name) for name in _TIMES})
        if self.drafts is not None:
            read_draft_lengths(self.drafts)
        if self.shape is not None:
            check_shape(self.shape, self.max_branches)

    def limits(self, max_tokens: int | None = None, context_length: int | None = None) -> Limits:
        """The caps, together with what the host itself limits a request to.

        Raises:
            LimitError: naming the cap, its value and what is allowed.
        """
        return Limits(max_tokens=max_tokens, context_length=context_length, **{cap: getattr(self, cap) for cap in CAPS})

    def controller(self, binding: Binding, limits: Limits, prompt: Sequence[int], admit: Admit | None) -> Controller:
        """Who decides about a request with these options; arguments as `Controller` has them."""
        if self.shape is None:
            return Controller(binding, limits, prompt, separators=self.separators, admit=admit)
        return ShapedController(binding, self.shape, limits, prompt, separators=self.separators, admit=admit)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Options:
        """The options of a server: `MULTIVERSE_MAX_BRANCHES=8` and so on."""
        found: dict[str, Any] = {}
        for name in FLAGS:
            text = environment.get(PREFIX + name.upper())
            if text is not None:
                found[name] = _READERS[name](name, text) if name in _READERS else text
        return cls(**found)

    def for_request(self, given: Mapping[str, Any] | str | None) -> Options:
        """The options of a request to this server.

        Args:
            given: the request's `multiverse` field: an object, or one in JSON.
        """
        if given is None:
            return self
        wanted = replace(self, **read_field(given, _REQUEST_FIELDS))
        if wanted.structure == "strict" and self.structure != "strict":
            raise OptionError("structure 'strict' needs a server that was started with --multiverse-structure strict")
        if wanted.shape is not None and self.shapes != "accept":
            raise OptionError("shape needs a server that was started with --multiverse-shapes accept")
        for cap in CAPS:
            most, value = getattr(self, cap), getattr(wanted, cap)
            if most is not None and (value is None or value > most):
                raise OptionError(f"{cap} must be at most {most} on this server, got {shown(value)}")
        return wanted


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise OptionError(f"{name} must be an integer, got {shown(text)}") from None


def _time(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise OptionError(f"{name} must be a number of milliseconds, got {shown(text)}") from None


def _switch(name: str, text: str) -> bool:
    if text not in ("", "0", "1"):
        raise OptionError(f"{name} must be 0 or 1, got {shown(text)}")
    return text == "1"


_READERS: Mapping[str, Callable[[str, str], Any]] = {
    **dict.fromkeys(_NUMBERS, _number),
    **dict.fromkeys(_TIMES, _time),
    **dict.fromkeys(_SWITCHES, _switch),
}
"""How values are read that are no texts."""


def flag(name: str) -> str:
    """The command line flag of an option."""
    return f"--multiverse-{name.replace('_', '-')}"


def show_flags(parser: argparse.ArgumentParser) -> None:
    """Let the help of a host's command line show the flags; they are taken out of it before it is parsed."""
    group = parser.add_argument_group("Multiverse", "Options of --plugin multiverse.")
    for name, text in FLAGS.items():
        action = "store_true" if name in _SWITCHES else "store"
        group.add_argument(flag(name), help=text, default=argparse.SUPPRESS, action=action)


def take_flags(arguments: list[str], environment: MutableMapping[str, str] = os.environ) -> None:
    """Take `--multiverse-*` flags out of a command line and put them into the environment, which workers inherit.

    Raises:
        OptionError: for a flag that is unknown or lacks its value.
    """
    names = {flag(name): name for name in FLAGS}
    at = 1
    while at < len(arguments):
        found, given, value = arguments[at].partition("=")
        if not found.startswith("--multiverse-"):
            at += 1
            continue
        if found not in names:
            raise OptionError(f"unknown option {found}; there are {', '.join(names)}")
        alone = bool(given) or names[found] in _SWITCHES
        if not alone and at + 1 >= len(arguments):
            raise OptionError(f"{found} needs a value")
        environment[PREFIX + names[found].upper()] = value if given else "1" if alone else arguments[at + 1]
        del arguments[at : at + (1 if alone else 2)]
    Options.from_environment(environment)
