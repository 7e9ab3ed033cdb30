"""What a page draws of an answer's record, checked before it is drawn: files and bodies can hold anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiverse.decoding.budgets import LARGEST
from multiverse.errors import TranscriptError, shown

DEEPEST = 64
"""Blocks inside each other that can be drawn."""


def read_tree(record: Any) -> list[Mapping[str, Any]]:
    """The strands of a record that came with `return_tree`, all there and each as `serving.report` makes them.

    Raises:
        TranscriptError: naming the place that isn't, and what it is.
    """
    strands = record.get("tree") if isinstance(record, Mapping) else record
    if not isinstance(strands, list) or not strands:
        raise TranscriptError(f"tree must be a list of strands, got {shown(strands)}")
    keys: set[tuple[int, ...]] = set()
    for number, strand in enumerate(strands):
        key = _read_strand(f"tree[{number}]", strand)
        if key in keys or (key and key[:-2] not in keys) or (not key) is not (number == 0):
            raise TranscriptError(f"tree[{number}].key must come once, behind its parent's, got {shown(list(key))}")
        keys.add(key)
    return strands


def _read_strand(place: str, strand: Any) -> tuple[int, ...]:
    """Check one strand. Returns its key."""
    if not isinstance(strand, Mapping):
        raise TranscriptError(f"{place} must be a strand, got {shown(strand)}")
    key = _integers(place, strand, "key", LARGEST)
    if len(key) % 2 or len(key) > 2 * DEEPEST:
        raise TranscriptError(f"{place}.key must be pairs of numbers, at most {DEEPEST}, got {len(key)} numbers")
    positions = _integers(place, strand, "positions", LARGEST)
    forks = _integers(place, strand, "forks", len(positions))
    _check(forks == sorted(forks), place, strand, "forks", "in order")
    texts = strand.get("texts") or [""] * (len(forks) + 1)
    _check(_is_list(texts, str) and len(texts) == len(forks) + 1, place, strand, "texts", "a text more than forks")
    _check(isinstance(strand.get("label"), str), place, strand, "label", "a text")
    _check(isinstance(strand.get("finish_reason"), str | None), place, strand, "finish_reason", "a text or null")
    fallbacks = strand.get("fallbacks")
    pairs = isinstance(fallbacks, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in fallbacks)
    _check(pairs and _is_list([reason for _, reason in fallbacks or ()], str), place, strand, "fallbacks", "pairs")
    for name in ("started", "closed"):
        _check(isinstance(strand.get(name), int | float | None), place, strand, name, "seconds or null")
    return tuple(key)


def _integers(place: str, strand: Mapping[str, Any], name: str, most: int) -> list[int]:
    found = strand.get(name)
    right = _is_list(found, int) and all(0 <= number <= most for number in found or ())
    _check(right, place, strand, name, f"a list of integers from 0 to {most}")
    return list(found or ())


def _is_list(value: Any, of: type) -> bool:
    return isinstance(value, list) and all(isinstance(one, of) and not isinstance(one, bool) for one in value)


def _check(right: bool, place: str, strand: Mapping[str, Any], name: str, wanted: str) -> None:
    if not right:
        raise TranscriptError(f"{place}.{name} must be {wanted}, got {shown(strand.get(name))}")
