"""The field `multiverse` of a request as a client sent it: bounded in every direction before anything looks inside.

JSON knows numbers of any size and nesting of any depth; the ways from a front end to its scheduler don't, nor do
samplers. What passes here can be sent, compared, recursed into and sampled with on every host.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from multiverse.errors import OptionError, shown

NAME = "multiverse"
DEEPEST = 40
"""Objects and lists inside each other that the field may have: as many as the deepest shape needs."""
ALL_TOKENS = 1 << 30
"""The `top_k` that leaves no token out, whatever the vocabulary."""
BRANCH_SAMPLING: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0.001, 1),
    "top_k": (1, ALL_TOKENS),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0.1, 2),
}
"""What `branch_sampling` may set, as hosts call it, and from where to where.

The bounds are tighter than those of some hosts: logits that are divided by the least of them stay finite.
"""
_CUTS = {"top_p": 1.0, "top_k": ALL_TOKENS, "min_p": 0.0}
"""What leaves unlikely tokens out, at values that leave out none."""
SLO = ("tpot_ms", "deadline_ms")
"""What a request may ask to be held: milliseconds per token behind its first, and from its arrival to its last."""
LONGEST_MS = 86_400_000
"""A day."""
_NAMED = 3
"""Unknown keys that an error names; of the others it tells how many there are."""


def has_field(request: Mapping[str, Any]) -> bool:
    """Whether a request's body has the field, even if it is null."""
    return NAME in request or NAME in _metadata(request)


def field_of(request: Mapping[str, Any]) -> Any:
    """The field of a request's body, not yet looked into; `None` without one.

    It may also stand in `metadata`, which gateways hand on that drop fields they don't know.
    """
    return request[NAME] if NAME in request else _metadata(request).get(NAME)


def _metadata(request: Mapping[str, Any]) -> Mapping[str, Any]:
    found = request.get("metadata")
    return found if isinstance(found, Mapping) else {}


def read_field(given: Any, known: Collection[str]) -> Mapping[str, Any]:
    """The field as an object with none but `known` names.

    Args:
        given: an object, or one in JSON.

    Raises:
        OptionError: naming what is wrong, in few words whatever was sent.
    """
    if isinstance(given, str):
        try:
            given = read_json(given)
        except ValueError as error:
            raise OptionError(f"multiverse must be an object, got text that is not JSON ({error})") from None
    check_depth(NAME, given)
    if not isinstance(given, Mapping):
        raise OptionError(f"multiverse must be an object, got {type(given).__name__}")
    refuse_unknown(NAME, given, known)
    return given


def read_json(text: str | bytes) -> Any:
    """What `text` says.

    Raises:
        ValueError: if it is not JSON, or is nested deeper than Python reads.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def check_depth(name: str, value: Any, most: int = DEEPEST) -> None:
    """Refuse what has more than `most` objects and lists inside each other, without recursion.

    Raises:
        OptionError: naming `name` and the bound.
    """
    level: list[Any] = [value]
    for _ in range(most + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise OptionError(f"{name} must not nest objects and lists deeper than {most}")


def _inside(value: Any) -> Collection[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def refuse_unknown(name: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise OptionError if `given` has keys that are not `known`."""
    if unknown := [key for key in given if key not in known]:
        named = ", ".join(map(shown, unknown[:_NAMED]))
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        raise OptionError(f"{name} has no {named}{more}; it has {', '.join(known)}")


def check_branch_sampling(given: Any) -> None:
    """Refuse what no sampler can work with.

    Raises:
        OptionError: naming the parameter, its value and what is allowed.
    """
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise OptionError(f"branch_sampling must be an object, got {type(given).__name__}")
    refuse_unknown("branch_sampling", given, BRANCH_SAMPLING)
    for name, value in given.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise OptionError(f"branch_sampling: {name} must be a number, got {shown(value)}")
        least, most = BRANCH_SAMPLING[name]
        if not least <= value <= most:  # which a number that is none (NaN) isn't either
            raise OptionError(f"branch_sampling: {name} must be from {least} to {most}, got {shown(value)}")
        if name == "top_k" and not isinstance(value, int):
            raise OptionError(f"branch_sampling: top_k must be an integer, got {shown(value)}")


def check_slo(given: Any) -> None:
    """Refuse what can't be held.

    Raises:
        OptionError: naming the promise, its value and what is allowed.
    """
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise OptionError(f"slo must be an object, got {type(given).__name__}")
    refuse_unknown("slo", given, SLO)
    for name, value in given.items():
        check_milliseconds(f"slo: {name}", value)


def check_milliseconds(name: str, value: Any) -> None:
    """Raise OptionError, naming `name`, unless `value` is a time that can be waited for."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= LONGEST_MS:
        raise OptionError(f"{name} must be a number of milliseconds above 0, at most {LONGEST_MS}, got {shown(value)}")


def changed_in_branches(wanted: Mapping[str, float], greedy: bool) -> dict[str, float]:
    """What a branch samples with otherwise than its request, which is `greedy` or samples.

    Hosts forget or keep different ones of the cuts of a greedy request (`temperature` 0 or `top_k` 1). Here it has
    none, and stays greedy in branches unless `wanted` has a temperature.
    """
    if not greedy:
        return dict(wanted)
    if "temperature" in wanted:
        return _CUTS | dict(wanted)
    return {name: value for name, value in wanted.items() if name not in _CUTS}
