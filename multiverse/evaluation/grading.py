"""Is the answer right? The stated answer is taken out of the text and compared; nothing else of the text counts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from multiverse.harness.answers import normalise, read_math, same_math
from multiverse.harness.stated import stated

Grader = Literal["math", "choice", "exact"]
"""Equal as mathematics; the same letter; the same characters."""

_LETTER = re.compile(r"^[\s(\[*$\\{]*(?:text\w*\{\s*|math\w+\{\s*)?[(\[*]*([A-Za-z])(?![A-Za-z])")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}")
"""An answer with such a word is no formula, though it may be read as a product of letters."""

_NUMBER = re.compile(r"(?<![\w.,/^])-?\d[\d,]*(?:\.\d+)?(?:/\d+)?(?![\w^])")
_DENIED = re.compile(r"\bnot\b|n't\b", re.IGNORECASE)


class Verdict(StrEnum):
    """What an answer is worth."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no answer"


@dataclass(frozen=True)
class Grade:
    """A verdict and the answer it is about; `None` if the text states none."""

    verdict: Verdict
    found: str | None = None


def grade(grader: Grader, expected: str, text: str) -> Grade:
    """Grade the answer that `text` (the model's words, without the prompt) states."""
    found = stated(text, several=grader == "math")
    if found is None:
        return Grade(Verdict.NO_ANSWER)
    return Grade(Verdict.CORRECT if _COMPARE[grader](expected, found) else Verdict.WRONG, found)


def _same_mathematics(expected: str, found: str) -> bool:
    if _bare(expected) == _bare(found):
        return True
    if _WORD.search(_without_commands(expected)):
        return False
    gold = read_math(f"\\boxed{{{expected}}}")
    if not gold:
        return False
    if same_math(gold, read_math(f"\\boxed{{{found}}}")):
        return True
    number = _only_number(found) if _NUMBER.fullmatch(normalise(expected).strip()) else None
    return number is not None and same_math(gold, read_math(f"\\boxed{{{number}}}"))


def _only_number(text: str) -> str | None:
    """The number in a sentence that has one, as "each gets 9 apples"; `None` if it is no such sentence."""
    text = normalise(_without_commands(text))
    numbers = _NUMBER.findall(text)
    return numbers[0] if len(numbers) == 1 and _WORD.search(text) and not _DENIED.search(text) else None


def _same_letter(expected: str, found: str) -> bool:
    letter = _LETTER.match(found)
    return letter is not None and letter[1].upper() == expected.strip().upper()


def _same_characters(expected: str, found: str) -> bool:
    return " ".join(expected.split()) == " ".join(found.split())


def _bare(text: str) -> str:
    return " ".join(_without_commands(normalise(text)).split()).casefold()


def _without_commands(text: str) -> str:
    return re.sub(r"\\text\w*\{([^{}]*)\}", r"\1", text)


_COMPARE: dict[Grader, Callable[[str, str], bool]] = {
    "math": _same_mathematics,
    "choice": _same_letter,
    "exact": _same_characters,
}
