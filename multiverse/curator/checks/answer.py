"""Does the restructured reasoning come to the answer that the original comes to?

`math-verify` decides for everything mathematical. It is imported only where texts alone don't settle it: that takes a
second. An answer that it can't read is compared as text.
"""

from __future__ import annotations

import re
import threading
from enum import StrEnum
from typing import Any

from multiverse.curator.sentences import one_line

_TAIL = 2000
"""Characters at the end of a text in which its answer is looked for."""
_SECONDS = 5
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}")
"""A word: an answer that holds one is no formula, though it may be read as a product of letters."""


class Agreement(StrEnum):
    """How two texts compare."""

    AGREES = "agrees"
    DIFFERS = "differs"
    NOT_STATED = "not stated"


def compare_answers(original: str, text: str) -> Agreement:
    """Compare the answers that two chains of reasoning end with. `NOT_STATED` if the original states none."""
    original, text = original[-_TAIL:], text[-_TAIL:]
    expected, found = _boxed(original), _boxed(text)
    if expected and found and one_line(expected) == one_line(found):
        return Agreement.AGREES
    gold = _parse(original)
    if not gold:
        return _compare_texts(expected, found)
    return _verify(gold, _parse(text))


def compare_with(answer: str, text: str) -> Agreement:
    """Compare the answer that `text` ends with to a given one. `NOT_STATED` if there is nothing to compare."""
    text = text[-_TAIL:]
    found = _boxed(text)
    if found and one_line(found) == one_line(answer):
        return Agreement.AGREES
    if _PROSE.search(answer):
        return Agreement.NOT_STATED
    gold, stated = _parse(f"\\boxed{{{answer}}}"), _parse(text)
    if not gold or not stated:
        return Agreement.NOT_STATED
    verdict = _verify(gold, stated)  # without a box the last number of a text need not be its answer
    return verdict if found or verdict is Agreement.AGREES else Agreement.NOT_STATED


def check_answer(original: str, text: str) -> list[str]:
    """`text` ends with the answer that `original` ends with."""
    if compare_answers(original, text) is not Agreement.DIFFERS:
        return []
    expected = _boxed(original[-_TAIL:]) or "the original's"
    found = _boxed(text[-_TAIL:]) or "another or none"
    return [f"the answer has changed: it must be {expected}, it now is {found}"]


def _boxed(text: str) -> str | None:
    """The content of the last `\\boxed{...}`."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    level, begin = 0, start + len("\\boxed")
    for at in range(begin, len(text)):
        level += {"{": 1, "}": -1}.get(text[at], 0)
        if level == 0:
            return text[begin + 1 : at].strip()
    return None


def _compare_texts(expected: str | None, found: str | None) -> Agreement:
    if not expected:
        return Agreement.NOT_STATED
    return Agreement.AGREES if found and _bare(expected) == _bare(found) else Agreement.DIFFERS


def _bare(text: str) -> str:
    return re.sub(r"\\text\w*|[\W_]+", " ", text).casefold().strip()


def _parse(text: str) -> list[Any]:
    from math_verify import parse

    # its time limit is an alarm signal, which only the main thread can set
    seconds = _SECONDS if threading.current_thread() is threading.main_thread() else None
    return list(parse(text, parsing_timeout=seconds, raise_on_error=False))


def _verify(gold: list[Any], found: list[Any]) -> Agreement:
    from math_verify import verify

    seconds = _SECONDS if threading.current_thread() is threading.main_thread() else None
    same = verify(gold, found, timeout_seconds=seconds, raise_on_error=False)
    return Agreement.AGREES if same else Agreement.DIFFERS
