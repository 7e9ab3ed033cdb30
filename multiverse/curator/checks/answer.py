"""Does the restructured reasoning come to the answer that the original comes to?

`math-verify` decides for everything mathematical. It is imported only where texts alone don't settle it: that takes a
second. An answer that it can't read is compared as text.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

from multiverse.curator.sentences import one_line
from multiverse.harness.answers import read_math, same_math
from multiverse.harness.stated import stated

_TAIL = 2000
"""Characters at the end of a text in which its answer is looked for."""
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
    expected, found = stated(original, several=True), stated(text, several=True)
    if expected and found and one_line(expected) == one_line(found):
        return Agreement.AGREES
    gold = _read(original, expected)
    if not gold:
        return _compare_texts(expected, found)
    return _verdict(same_math(gold, _read(text, found)))


def compare_with(answer: str, text: str) -> Agreement:
    """Compare the answer that `text` ends with to a given one. `NOT_STATED` if there is nothing to compare."""
    text = text[-_TAIL:]
    found = stated(text, several=True)
    if found and one_line(found) == one_line(answer):
        return Agreement.AGREES
    if _PROSE.search(answer):
        return Agreement.NOT_STATED
    gold, said = read_math(f"\\boxed{{{answer}}}"), _read(text, found)
    if not gold or not said:
        return Agreement.NOT_STATED
    verdict = _verdict(same_math(gold, said))  # without a box the last number of a text need not be its answer
    return verdict if found or verdict is Agreement.AGREES else Agreement.NOT_STATED


def check_answer(original: str, text: str) -> list[str]:
    """`text` ends with the answer that `original` ends with."""
    if compare_answers(original, text) is not Agreement.DIFFERS:
        return []
    expected = stated(original[-_TAIL:], several=True) or "the original's"
    found = stated(text[-_TAIL:], several=True) or "another or none"
    return [f"the answer has changed: it must be {expected}, it now is {found}"]


def _read(text: str, answer: str | None) -> list[Any]:
    """The mathematics of the answer that `text` states; if it states none, of its end. An empty box is no answer, and
    then no other number of the text is."""
    if answer is not None:
        return read_math(f"\\boxed{{{answer}}}")
    return [] if "\\boxed" in text else read_math(text)


def _compare_texts(expected: str | None, found: str | None) -> Agreement:
    if not expected:
        return Agreement.NOT_STATED
    return Agreement.AGREES if found and _bare(expected) == _bare(found) else Agreement.DIFFERS


def _verdict(same: bool) -> Agreement:
    return Agreement.AGREES if same else Agreement.DIFFERS


def _bare(text: str) -> str:
    return re.sub(r"\\text\w*|[\W_]+", " ", text).casefold().strip()
