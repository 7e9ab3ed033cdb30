"""Does a path speak of its siblings, or use what only they found out? Rules, for reasoning written in English.

They look for phrases that point out of a path, for numbers and for named quantities. They can be wrong both ways: the
judge and the likelihood test look with other eyes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_THINGS = r"(?:paths?|branch(?:es)?|cases?|steps?|parts?|approach(?:es)?|attempts?|outlines?|options?|candidates?)"
_ELSEWHERE = r"(?:previous|preceding|above|earlier|other)"
_ORDINAL = r"(?:last|first|second|third|fourth|next|same)"
_PHRASES = re.compile(
    r"\b(?:similarly|likewise|analogously|by the same (?:token|argument|reasoning|method)|in the same way"
    r"|(?:as|like) (?:before|above|previously|earlier)"
    r"|(?:found|computed|calculated|obtained|derived|shown) (?:before|above|earlier|previously)"
    r"|(?:as|like|unlike|than) (?:in |for |with |from )?(?:the|our|that)"
    rf" (?:{_ELSEWHERE}|{_ORDINAL}) (?:\w+ )?{_THINGS}"
    rf"|(?:in|from|with|to) the {_ELSEWHERE} (?:\w+ )?{_THINGS}"
    rf"|the {_THINGS} (?:above|before)"
    r"|the other (?:path|branch|one|ones))\b",
    re.IGNORECASE,
)
_BY_LABEL = re.compile(r"\b(?:path|branch|outline)s?\s+(\d+(?:\.\d+)*)", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)")
_COMPUTED = re.compile(r"(?:=|≈|≡|\\approx|\\equiv|\\to|→|\bis|\bare|\bgives?|\bmakes?|\bequals?|\bget|\byields?)\W*$")
_NAMED = re.compile(r"(?<![\w\\])([A-Za-z]\w*(?:_\{?\w+\}?)?)\s*(?:=|:=|≈|\\approx)(?!=)")


def check_references(paths: Sequence[str], labels: Sequence[str]) -> list[str]:
    """No path speaks of another, by its label or by a phrase that points out of it."""
    found = []
    for own, text in zip(labels, paths, strict=True):
        if match := _PHRASES.search(text):
            found.append(f"path {own} points out of itself: {_around(text, match)}")
        for match in _BY_LABEL.finditer(text):
            if match[1] in labels and match[1] != own:
                found.append(f"path {own} speaks of path {match[1]}: {_around(text, match)}")
    return found


def check_results(known: str, outlines: Sequence[str], paths: Sequence[str], labels: Sequence[str]) -> list[str]:
    """No path begins with a number or a name that an earlier sibling found, and no outline gives a result away.

    Args:
        known: what all paths see: the question and the text before the block.
    """
    found = []
    given = _numbers(known)
    for i, (own, text) in enumerate(zip(labels, paths, strict=True)):
        if given_away := sorted(_numbers(outlines[i]) - given):
            found.append(f"outline {own} gives away {', '.join(given_away)}, which its path has to find out")
        visible = f"{known}\n{outlines[i]}"
        for other in range(i):
            shared = _used_numbers(text, given | _numbers(outlines[i])) & _numbers(paths[other])
            shared |= _used_names(text, visible) & _defined_names(paths[other])
            if shared:
                found.append(f"path {own} uses {', '.join(sorted(shared))}, which path {labels[other]} found")
    return found


def _numbers(text: str) -> set[str]:
    """Numbers that are not everywhere: of two digits or more."""
    found = (match[0] for match in _NUMBER.finditer(text))
    return {number for number in found if sum(c.isdigit() for c in number) > 1}


def _used_numbers(text: str, given: set[str]) -> set[str]:
    """Numbers that `text` neither is given nor works out: at their first place they are no result."""
    used, seen = set(), set(given)
    for match in _NUMBER.finditer(text):
        number = match[0]
        if number in seen or sum(c.isdigit() for c in number) < 2:
            continue
        seen.add(number)
        if not _COMPUTED.search(text[max(0, match.start() - 24) : match.start()]):
            used.add(number)
    return used


def _defined_names(text: str) -> set[str]:
    return {match[1] for match in _NAMED.finditer(text)}


def _used_names(text: str, visible: str) -> set[str]:
    """Names of quantities, such as `x_1`, that `text` uses before it defines them and that nothing visible has."""
    used, defined = set(), {match[1]: match.start() for match in reversed(list(_NAMED.finditer(text)))}
    for match in re.finditer(r"(?<![\w\\])[A-Za-z]+_\{?\w+\}?", text):
        name = match[0]
        if match.start() < defined.get(name, len(text)) and name not in visible:
            used.add(name)
    return used


def _around(text: str, match: re.Match[str]) -> str:
    start, end = max(0, match.start() - 30), min(len(text), match.end() + 30)
    return f'"{" ".join(text[start:end].split())}"'
