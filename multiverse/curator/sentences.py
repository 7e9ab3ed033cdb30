"""Cutting a text into sentences without losing a character: joined, the pieces are the text.

Formulas and fenced code are never cut. A piece keeps the white space behind it.
"""

from __future__ import annotations

import re

# Within one of these nothing ends a sentence. Unclosed delimiters match nothing and are ordinary text.
_WHOLE = re.compile(
    r"```.*?```"
    r"|\$\$.*?\$\$"
    r"|\\\[.*?\\\]"
    r"|\\\(.*?\\\)"
    r"|\\begin\{(\w+\*?)\}.*?\\end\{\1\}"
    r"|(?<!\\)\$[^$\n]*(?<!\\)\$",
    re.DOTALL,
)
# A line break, or a full stop and what may close with it, before a space and something that can begin a sentence.
_END = re.compile(r"\n\s*|[.!?…]+[\"'\u201d\u2019)\]*_]*[ \t]+(?=[^\sa-z])")
_LIST_NUMBER = re.compile(r"\s*[(*_]*(?:\d+|[A-Za-z])\.[ \t]+")
_ABBREVIATION = re.compile(r"(?:^|[\s(])(?:e\.g|i\.e|cf|vs|Fig|Eq|Eqs|Thm|Dr|Mr|Mrs|Ms|St)\.[ \t]+$")


def split(text: str) -> list[str]:
    """The sentences of `text`, each with the white space that follows it; `"".join(split(text)) == text`."""
    whole = [match.span() for match in _WHOLE.finditer(text)]
    pieces: list[str] = []
    start, at = 0, 0
    for match in _END.finditer(text):
        while at < len(whole) and whole[at][1] <= match.start():
            at += 1
        inside = at < len(whole) and whole[at][0] < match.start()
        if inside or not text[start : match.end()].strip() or _abbreviates(text, start, match.end()):
            continue
        pieces.append(text[start : match.end()])
        start = match.end()
    if start < len(text):
        rest = text[start:]
        if pieces and not rest.strip():
            pieces[-1] += rest
        else:
            pieces.append(rest)
    return pieces


def _abbreviates(text: str, start: int, end: int) -> bool:
    """Whether the full stop before `end` belongs to a list number or an abbreviation."""
    return bool(_LIST_NUMBER.fullmatch(text, start, end) or _ABBREVIATION.search(text[max(start, end - 12) : end]))


def one_line(text: str) -> str:
    """`text` with every run of white space as one space, for prompts and messages."""
    return " ".join(text.split())
