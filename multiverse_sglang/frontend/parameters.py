"""Sampling parameters of requests, checked in the front end: in the scheduler a wrong value could end them all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from multiverse.errors import OptionError, shown
from multiverse.serving.options import Options
from multiverse.wire.responses import FIELD, STRUCTURED_OUTPUTS
from multiverse_sglang.sampling import check_branch_sampling

_CONSTRAINTS = ("regex", "ebnf", "json_schema", "structural_tag")


def check_parameters(given: object) -> None:
    """Refuse sampling parameters whose `custom_params` the scheduler could not read.

    Args:
        given: an object, a list of objects, or nothing; the body of an OpenAI request counts as one.

    Raises:
        OptionError: naming what is wrong and what is allowed.
    """
    for holder in holders(given):
        if (field := custom(holder).get(FIELD)) is None:
            continue
        options = Options.from_environment().for_request(field)
        if _is_constrained(holder) and options.enabled:
            raise OptionError(STRUCTURED_OUTPUTS)
        check_branch_sampling(options)


def holders(given: object) -> Iterator[dict[str, Any]]:
    """The objects that may have `custom_params`."""
    for holder in given if isinstance(given, list) else [given]:
        if holder is None:
            continue
        if not isinstance(holder, dict):
            raise OptionError(
                f"sampling_params must be an object or a list of objects, got {shown(given)}", "sampling_params"
            )
        yield holder


def custom(holder: dict[str, Any]) -> dict[str, Any]:
    """What it says under `custom_params`."""
    found = holder.get("custom_params")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise OptionError(f"custom_params must be an object, got {shown(found)}", "custom_params")
    return found


def check_openai(request: dict[str, Any]) -> None:
    """Refuse what SGLang 0.5.23 itself answers with a 500, or with a stream that breaks off.

    Raises:
        OptionError: naming what is wrong and what is allowed.
    """
    _response_format(request)
    number = request.get("n")
    if isinstance(number, int) and number < 1:
        raise OptionError(f"n must be at least 1, got {shown(number)}", "n")


def _response_format(holder: dict[str, Any]) -> dict[str, Any]:
    wanted = holder.get("response_format")
    if not isinstance(wanted, dict | None):
        raise OptionError(f"response_format must be an object, got {shown(wanted)}", "response_format")
    return wanted or {}


def _is_constrained(holder: dict[str, Any]) -> bool:
    """Whether it asks for structured outputs."""
    kind = _response_format(holder).get("type", "text")
    return kind != "text" or any(holder.get(name) for name in _CONSTRAINTS)
