"""Comparing answers as mathematics, with `math-verify`, which is imported only where it is needed.

What it reads wrongly is put right before: it takes `10\\,000` for 0, and `50\\%` for another number in each release.
Its release decides verdicts, so the package pins it and reports name it.

`math-verify` limits its time by an alarm signal, which only the main thread can set; elsewhere it has no limit.
"""

from __future__ import annotations

import re
import threading
from importlib import metadata
from typing import Any

SECONDS = 5
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_THOUSANDS = re.compile(r"(?<=\d)(?:\\[,;:! ]|\{,\}|[\u2009\u202f\u00a0])(?=\d{3}(?!\d))")
_SPACES = re.compile(r"(?<!\\)\\[,;:!]|[\u2009\u202f\u00a0]")
_PERCENT = re.compile(r"(?<=[\d}])\s*\\?%")


def release() -> str:
    """The release of `math-verify` that decides, for reports; empty if it isn't installed."""
    try:
        return f"math-verify {metadata.version('math-verify')}"
    except metadata.PackageNotFoundError:
        return ""


def normalise(text: str) -> str:
    """`text` with thousands unspaced, raised digits as exponents, a plain minus, no percent signs."""
    text = _THOUSANDS.sub("", text)
    text = _RAISED.sub(lambda match: f"^{{{match[0].translate(_SUPERSCRIPTS)}}}", text)
    return _PERCENT.sub("", _SPACES.sub(" ", text).replace("\u2212", "-"))


def read_math(text: str) -> list[Any]:
    """What `math-verify` finds in `text`; empty if it finds nothing."""
    from math_verify import parse

    return list(parse(normalise(text), parsing_timeout=_seconds(), raise_on_error=False))


def same_math(expected: list[Any], found: list[Any]) -> bool:
    """Whether `math-verify` takes `found` for the same as `expected`."""
    from math_verify import verify

    return bool(verify(expected, found, timeout_seconds=_seconds(), raise_on_error=False))


def _seconds() -> int | None:
    return SECONDS if threading.current_thread() is threading.main_thread() else None
