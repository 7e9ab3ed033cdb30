"""What an adapter touches of its host's internals: rows of a table that is checked before anything is changed."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Hook:
    """One thing of a host that an adapter relies on or wraps.

    Attributes:
        target: `module:Class.attribute`, or `module:Class` where only the attributes of its instances matter.
        parameters: the parameters relied upon; of a class, its fields or the attributes that its methods set and read.
        wrapped: whether it is overridden or wrapped; else it is only called or read.
        why: what for.
        since: the first version in which it was seen like this; an older host needs no such row.
        obsolete: what upstream change would remove the row.
        native: what that change adds, as a target: where the host has it, it is used and the row is not needed.
        replaced: whether what is wrapped is not called for requests with blocks: what it does is ours to do then.
    """

    target: str
    parameters: tuple[str, ...]
    wrapped: bool
    why: str
    since: str
    obsolete: str
    native: str = ""
    replaced: bool = False


def needed(hooks: Iterable[Hook], version: str) -> tuple[Hook, ...]:
    """The rows for which the installed host offers nothing itself, but for those that are about later releases."""
    older = tuple(hook for hook in hooks if release(hook.since) <= release(version))
    return tuple(hook for hook in older if not (hook.native and offered(hook.native)))


def release(version: str) -> tuple[int, ...]:
    """A version to be compared with others; of nothing that has a number, behind all of them."""
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])[:3])) or (sys.maxsize,)


def offered(target: str) -> bool:
    """Whether the installed host has what `target` names."""
    try:
        resolve(target)
    except (ImportError, AttributeError):
        return False
    return True


def missing(hooks: Iterable[Hook]) -> list[str]:
    """What of the table the installed host does not have; empty if all is there."""
    problems = []
    for hook in hooks:
        try:
            known = _known_names(resolve(hook.target))
        except (ImportError, AttributeError) as error:
            problems.append(f"{hook.target} is not there ({error})")
            continue
        if absent := [name for name in hook.parameters if name not in known]:
            problems.append(f"{hook.target} has no {', '.join(absent)}")
    return problems


def _known_names(found: Any) -> set[str]:
    """The parameters of a function; what a class declares and what its methods and those of its bases name."""
    if not inspect.isclass(found):
        return set(inspect.signature(found).parameters)
    names: set[str] = set()
    for base in found.__mro__:
        methods = [inspect.unwrap(value) for value in vars(base).values() if inspect.isfunction(value)]
        names |= {name for method in methods if inspect.isfunction(method) for name in method.__code__.co_names}
        names |= {*vars(base), *vars(base).get("__annotations__", ())}
    return names


def resolve(target: str) -> Any:
    """The object that `module:Class.attribute` names.

    Raises:
        ImportError, AttributeError: if it isn't there.
    """
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def describe(
    host: str, version: str, problems: list[str], hooks: Iterable[Hook], hints: Iterable[str] = ()
) -> dict[str, Any]:
    """The report of one host for `multiverse check`; `version` is `none` if it isn't installed."""
    rows = [{"target": hook.target, "why": hook.why, "obsolete": hook.obsolete} for hook in hooks]
    return {"host": host, "version": version, "problems": problems, "hints": list(hints), "hooks": rows}
