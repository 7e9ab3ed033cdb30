r"""The answer that a text states, taken out of the text as it is written.

That is the last `\boxed{...}` that is whole and not empty, or what stands in a later `<answer>`; else what follows the
last "answer is", "Answer:" or heading "Final Answer" near the end, on the same line or the next that says something.
A text with none of them states none, even if its last number happens to be right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_END = 300
"""Characters at the end in which an answer without a box must begin; before that it is a thought."""

_END_TOKENS = re.compile(
    r"(?:\s*(?:<\|[^|<>\s]{1,40}\|>|<\uff5c[^\uff5c<>]{1,40}\uff5c>|</s>|<eos>|<end_of_turn>))+\s*$"
)
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_SAID = re.compile(
    r"\banswer\**\s*(?:is|:)[ \t*:]*|^[^\w\n]*(?:(?:the|my)[ \t]+)?(?:final[ \t]+)?answer[^\w\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"(?<!\d)[.;](?=\s|$)|(?<=\d)\.(?=\s|$)")
_BETWEEN = re.compile(r"[\s$]*(?:[,;][\s$]*(?:and|or)?|and|or)[\s$]*")
"""What stands between boxes that hold one answer together."""
_DELIMITERS = re.compile(r"\\[\[\]()]")


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}` that is whole and not empty; `None` without one."""
    found = list(_boxes(text))
    return found[-1][2] if found else None


def stated(text: str, several: bool = False) -> str | None:
    """The answer that `text` states; `None` if it states none.

    Args:
        several: take boxes that follow one another, with only commas, "and" or "or" between them, as one answer.
    """
    text = _END_TOKENS.sub("", text)
    boxes = list(_boxes(text))
    tagged = [match for match in _TAGGED.finditer(text) if match[1].strip()]
    if tagged and (not boxes or boxes[-1][0] < tagged[-1].start()):
        return tagged[-1][1].strip()
    if boxes:
        return _together(text, boxes) if several else boxes[-1][2]
    end = text[-_END:]
    said = [line for match in _SAID.finditer(end) if (line := _first_line(end[match.end() :]))]
    return _SENTENCE_END.split(said[-1])[0].strip(" *$`") or None if said else None


def _boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """Every whole box that holds something: start, end, content; of boxes in boxes the outer one."""
    at = 0
    while (start := text.find("\\boxed{", at)) >= 0:
        level, at = 0, start + len("\\boxed")
        for end in range(at, len(text)):
            level += {"{": 1, "}": -1}.get(text[end], 0)
            if level == 0:
                if content := text[at + 1 : end].strip():
                    yield start, end + 1, content
                at = end + 1
                break


def _together(text: str, boxes: list[tuple[int, int, str]]) -> str:
    """The last box with those right before it."""
    first = len(boxes) - 1
    while first and _BETWEEN.fullmatch(text[boxes[first - 1][1] : boxes[first][0]]):
        first -= 1
    return ", ".join(dict.fromkeys(content for _, _, content in boxes[first:]))


def _first_line(text: str) -> str:
    """The first line that says something, without marks of displayed mathematics."""
    lines = (_DELIMITERS.sub("", line).strip() for line in text.split("\n"))
    return next((line for line in lines if any(map(str.isalnum, line))), "")
