"""Answers in mathematical texts: the last box, and `math-verify`, which is imported only where it is needed.

`math-verify` limits its time by an alarm signal, which only the main thread can set; elsewhere it has no limit.
"""

from __future__ import annotations

import threading
from typing import Any

SECONDS = 5


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}`; `None` without one, or if it is cut off."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    level, begin = 0, start + len("\\boxed")
    for at in range(begin, len(text)):
        level += {"{": 1, "}": -1}.get(text[at], 0)
        if level == 0:
            return text[begin + 1 : at].strip()
    return None


def read_math(text: str) -> list[Any]:
    """What `math-verify` finds in `text`; empty if it finds nothing."""
    from math_verify import parse

    return list(parse(text, parsing_timeout=_seconds(), raise_on_error=False))


def same_math(expected: list[Any], found: list[Any]) -> bool:
    """Whether `math-verify` takes `found` for the same as `expected`."""
    from math_verify import verify

    return bool(verify(expected, found, timeout_seconds=_seconds(), raise_on_error=False))


def _seconds() -> int | None:
    return SECONDS if threading.current_thread() is threading.main_thread() else None
