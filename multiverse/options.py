"""What an operator sets for a server and a client for a request: one table of options, the same on every host.

Lowest layer first: defaults, `MULTIVERSE_*` environment variables, `--multiverse-*` flags, fields of a request. A
request may tighten the caps of its server, not loosen them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from multiverse.budgets import Limits
from multiverse.errors import OptionError
from multiverse.layout import Separators

PREFIX = "MULTIVERSE_"
STRUCTURES = ("lenient", "strict")
CAPS = ("max_branches", "max_depth", "max_parallel", "max_critical_path")
_CHOICES = {"structure": STRUCTURES, "separators": get_args(Separators)}
_REQUEST_FIELDS = ("enabled", "structure", *CAPS, "return_tree")


@dataclass(frozen=True)
class Options:
    """Options of a server, or of one of its requests.

    Attributes:
        enabled: whether blocks are forked; if not, a request is a plain one.
        dialect: name of the dialect, or path of one in TOML; detected from the tokenizer if not given.
        structure: `strict` lets the sampler choose only tags that the grammar allows, `lenient` any.
        separators: whether a separator takes a position of its own (SEMANTICS section 2).
        max_branches, max_depth, max_parallel, max_critical_path: see `Limits`.
        return_tree: whether the answer comes with its tree.

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
    return_tree: bool = False

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise OptionError(f"{name} must be {' or '.join(map(repr, choices))}, got {value!r}")
        for name in ("enabled", "return_tree"):
            if not isinstance(getattr(self, name), bool):
                raise OptionError(f"{name} must be true or false, got {getattr(self, name)!r}")
        self.limits()

    def limits(self, max_tokens: int | None = None, context_length: int | None = None) -> Limits:
        """The caps, together with what the host itself limits a request to.

        Raises:
            LimitError: naming the cap, its value and what is allowed.
        """
        return Limits(max_tokens=max_tokens, context_length=context_length, **{cap: getattr(self, cap) for cap in CAPS})

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Options:
        """The options of a server: `MULTIVERSE_MAX_BRANCHES=8` and so on."""
        found: dict[str, Any] = {}
        for field in fields(cls):
            text = environment.get(PREFIX + field.name.upper())
            if text is not None and field.name not in ("enabled", "return_tree"):
                found[field.name] = _number(field.name, text) if field.name in CAPS else text
        return cls(**found)

    def for_request(self, given: Mapping[str, Any] | str | None) -> Options:
        """The options of a request to this server.

        Args:
            given: the request's `multiverse` field: an object, or one in JSON.
        """
        if given is None:
            return self
        if isinstance(given, str):
            try:
                given = json.loads(given)
            except ValueError as error:
                raise OptionError(f"multiverse must be an object, got text that is not JSON ({error})") from None
        if not isinstance(given, Mapping):
            raise OptionError(f"multiverse must be an object, got {type(given).__name__}")
        if unknown := [name for name in given if name not in _REQUEST_FIELDS]:
            raise OptionError(f"multiverse has no {', '.join(map(repr, unknown))}; it has {', '.join(_REQUEST_FIELDS)}")
        wanted = replace(self, **given)
        if wanted.structure == "strict" and self.structure != "strict":
            raise OptionError("structure 'strict' needs a server that was started with --multiverse-structure strict")
        for cap in CAPS:
            most, value = getattr(self, cap), getattr(wanted, cap)
            if most is not None and (value is None or value > most):
                raise OptionError(f"{cap} must be at most {most} on this server, got {value!r}")
        return wanted


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise OptionError(f"{name} must be an integer, got {text!r}") from None


def take_flags(arguments: list[str], environment: MutableMapping[str, str] = os.environ) -> None:
    """Take `--multiverse-*` flags out of a command line and put them into the environment, which workers inherit.

    Raises:
        OptionError: for a flag that is unknown or lacks its value.
    """
    flags = {f"--multiverse-{field.name.replace('_', '-')}": field.name for field in fields(Options)}
    at = 1
    while at < len(arguments):
        flag, given, value = arguments[at].partition("=")
        if not flag.startswith("--multiverse-"):
            at += 1
            continue
        if flag not in flags or flags[flag] in ("enabled", "return_tree"):
            raise OptionError(f"unknown option {flag}")
        if not given and at + 1 >= len(arguments):
            raise OptionError(f"{flag} needs a value")
        environment[PREFIX + flags[flag].upper()] = value if given else arguments[at + 1]
        del arguments[at : at + (1 if given else 2)]
    Options.from_environment(environment)
