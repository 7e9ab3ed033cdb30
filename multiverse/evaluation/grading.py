"""Is the answer right? The stated answer is taken out of the text and compared; nothing else of the text counts.

The stated answer is the last `\\boxed{...}`, or what follows the last "answer is" or "Answer:" if that stands near the
end. A text without either states none, even if its last number happens to be right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from multiverse.answers import boxed, read_math, same_math

Grader = Literal["math", "choice", "exact"]
"""Equal as mathematics; the same letter; the same characters."""

_STATED = re.compile(r"\banswer\**\s*(?:is|:)[ \t*:]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<!\d)[.;](?=\s|$)|(?<=\d)\.(?=\s|$)")
_LETTER = re.compile(r"^[\s(\[*$\\{]*(?:text\w*\{\s*|math\w+\{\s*)?[(\[*]*([A-Za-z])(?![A-Za-z])")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}")
"""An answer with such a word is no formula, though it may be read as a product of letters."""


_END = 300
"""Characters at the end in which an answer without a box must begin; before that it is a thought."""


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
    found = stated(text)
    if found is None:
        return Grade(Verdict.NO_ANSWER)
    return Grade(Verdict.CORRECT if _COMPARE[grader](expected, found) else Verdict.WRONG, found)


def stated(text: str) -> str | None:
    """The answer that `text` states."""
    if (found := boxed(text)) is not None:
        return found or None
    end = text[-_END:]
    lines = [end[match.end() :].partition("\n")[0].strip() for match in _STATED.finditer(end)]
    said = [line for line in lines if line]
    return _SENTENCE_END.split(said[-1])[0].strip(" *$`") or None if said else None


def _same_mathematics(expected: str, found: str) -> bool:
    if _bare(expected) == _bare(found):
        return True
    if _WORD.search(_without_commands(expected)):
        return False
    gold = read_math(f"\\boxed{{{expected}}}")
    return bool(gold) and same_math(gold, read_math(f"\\boxed{{{found}}}"))


def _same_letter(expected: str, found: str) -> bool:
    letter = _LETTER.match(found)
    return letter is not None and letter[1].upper() == expected.strip().upper()


def _same_characters(expected: str, found: str) -> bool:
    return " ".join(expected.split()) == " ".join(found.split())


def _bare(text: str) -> str:
    return " ".join(_without_commands(text).split()).casefold()


def _without_commands(text: str) -> str:
    return re.sub(r"\\text\w*\{([^{}]*)\}", r"\1", text)


_COMPARE: dict[Grader, Callable[[str, str], bool]] = {
    "math": _same_mathematics,
    "choice": _same_letter,
    "exact": _same_characters,
}
