"""Is everything of the original there, and nearly where it was?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rapidfuzz.distance import Levenshtein

from multiverse.curator.artefacts import Refill
from multiverse.curator.sentences import one_line

_SHOWN = 12
_SLACK = 60
"""So many characters of a path may change even if that is most of it: short paths lean with a few words, too."""


def edit_ratio(original: str, text: str) -> float:
    """Edit distance in characters over the longer length, white space counted as one space: 0 is equal, 1 is alien."""
    return float(Levenshtein.normalized_distance(one_line(original), one_line(text)))


def check_coverage(refill: Refill, labels: Sequence[str], count: int) -> list[str]:
    """Every one of `count` sentences belongs to exactly one label, and every label has some."""
    found = []
    if unknown := [label for label in refill.sentences if label not in labels]:
        found.append(f"there is no label {_listed(unknown)} in the plan")
    if empty := [label for label in labels if not refill.sentences.get(label)]:
        found.append(f"no sentence was given to label {_listed(empty)}")
    given = Counter(number for numbers in refill.sentences.values() for number in numbers)
    if missing := [number for number in range(1, count + 1) if not given[number]]:
        found.append(f"sentence {_listed(missing)} is missing")
    if twice := sorted(number for number, times in given.items() if times > 1):
        found.append(f"sentence {_listed(twice)} is given to more than one place")
    if beyond := sorted(number for number in given if not 1 <= number <= count):
        found.append(f"there is no sentence {_listed(beyond)}: they are numbered 1 to {count}")
    return found


def check_edit_ratio(original: str, text: str, limit: float) -> list[str]:
    """The refilled text differs from the original by at most `limit`."""
    ratio = edit_ratio(original, text)
    if ratio <= limit:
        return []
    return [f"the refilled text is not in the order of the original: edit distance {ratio:.2f}, allowed is {limit:.2f}"]


def check_edits(
    edits: Mapping[int, str], sentences: Sequence[str], paths: Sequence[Sequence[int]], limit: float
) -> list[str]:
    """Edits name sentences of the block, empty none, and leave each path the path it was.

    Args:
        sentences: all sentences of the chain before the edits.
        paths: per path the numbers of its sentences.
        limit: share of a path's characters that may change.
    """
    within = {number for path in paths for number in path}
    found = []
    if outside := sorted(set(edits) - within):
        found.append(f"sentence {_listed(outside)} is edited but in no path of this block")
    if empty := sorted(number for number, text in edits.items() if not text.strip()):
        found.append(f"sentence {_listed(empty)} was emptied: every sentence has to keep what it says")
    for label, path in enumerate(paths, 1):
        before = "".join(sentences[number - 1] for number in path)
        after = " ".join(edits.get(number, sentences[number - 1]) for number in path)
        ratio = edit_ratio(before, after)
        if ratio > limit and ratio * max(len(before), len(after)) > _SLACK:
            found.append(f"path {label} was rewritten too much: {ratio:.0%} of it changed, allowed are {limit:.0%}")
    return found


def _listed(values: Sequence[object]) -> str:
    shown = ", ".join(map(str, values[:_SHOWN]))
    return shown if len(values) <= _SHOWN else f"{shown} and {len(values) - _SHOWN} more"
