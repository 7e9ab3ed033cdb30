"""Stop strings, looked for in what one strand has sampled (SEMANTICS section 4).

A stop string may begin and end within tokens, so it is looked for in text. Text is decoded only while a stop string may
be in the making: most tokens have no character with which one begins.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from multiverse.decoding.strand import Strand
from multiverse.wire.detokenizer import INCOMPLETE

_CONTEXT = 4
"""Tokens decoded before those that are searched: a word may look different at the beginning of a text."""
_LONGEST_CHARACTER = 4
"""Tokens that one character may take, in bytes of UTF-8."""


@dataclass(frozen=True)
class Stops:
    """What a request wants to end at.

    Attributes:
        strings: looked for in the text of what was sampled, special tokens spelled out, shown or not. None is empty.
        tokens: ids of stop tokens, without those that end a turn, which are never part of a branch.
        keep: whether what a branch ended at stays in it.
        min_tokens: no stop string ends a strand that doesn't see more generated tokens than these, its own included.
    """

    strings: tuple[str, ...] = ()
    tokens: frozenset[int] = frozenset()
    keep: bool = False
    min_tokens: int = 0


class Texts(Protocol):
    """What the search needs of `multiverse.structure.binding.Binding`."""

    def text(self, tokens: Sequence[int]) -> str:
        """What `tokens` say."""

    def characters(self, token: int) -> frozenset[str]:
        """The characters that `token` adds to a text; `INCOMPLETE` if it has part of one."""


class Found(NamedTuple):
    """A stop string that became whole.

    Attributes:
        string: which.
        offset: how many of the strand's tokens come before it, or end with it if it is kept.
        head: what the next token says before that place; empty if the place is between two tokens.
        from_end: how many characters of what was sampled come from the string's beginning on.
    """

    string: str
    offset: int
    head: str
    from_end: int


class StopSearch:
    """Follows one strand.

    What the engine writes in between begins a new search, so that no string is found in it or across it.

    Attributes:
        open_from: offset of the first of the strand's tokens that may belong to a stop string in the making.
    """

    def __init__(self, stops: Stops, texts: Texts) -> None:
        self._stops, self._texts = stops, texts
        self._firsts = {string[0] for string in stops.strings} | {INCOMPLETE}
        self._next = (-1, 0)
        self._ends: list[int] = []
        self.open_from = 0

    def feed(self, strand: Strand, token: int, enough: bool = True) -> Found | None:
        """Take a token that was sampled behind the tokens of `strand`.

        Returns:
            the stop string that became whole first, if one did and the strand has `enough` tokens to end.
        """
        at = len(strand.tokens)
        if (at, len(strand.forks)) != self._next:
            self._ends, self.open_from = [], at
        self._next = (at + 1, len(strand.forks))
        if not self._ends and self._firsts.isdisjoint(self._texts.characters(token)):
            self.open_from = at + 1
            return None
        text = self._decode(strand, token)
        found = self._find(text) if enough else None
        if found is None:
            self._move_on(text)
        return found

    def _decode(self, strand: Strand, token: int) -> str:
        """The text from `open_from` on; `_ends` are then the lengths of its whole characters after each token."""
        context = strand.tokens[max(0, self.open_from - _CONTEXT) : self.open_from]
        searched = self._texts.text([*context, *strand.tokens[self.open_from :], token])
        text = searched[len(self._texts.text(context)) :]
        whole = len(text.rstrip(INCOMPLETE))
        last = [0, *self._ends][-_LONGEST_CHARACTER:]
        stuck = last == [whole] * _LONGEST_CHARACTER  # nothing will make a character of these bytes
        self._ends.append(len(text) if stuck else whole)
        return text

    def _find(self, text: str) -> Found | None:
        before = self._ends[-2] if len(self._ends) > 1 else 0
        places = [(text.find(string, max(0, before + 1 - len(string))), string) for string in self._stops.strings]
        places = [(at, string) for at, string in places if 0 <= at <= self._ends[-1] - len(string)]
        if not places:
            return None
        start, string = min(places, key=lambda place: place[0] + len(place[1]))
        return _place(string, text, start, start + len(string) * self._stops.keep, [0, *self._ends], self.open_from)

    def _move_on(self, text: str) -> None:
        """Leave behind the tokens that can't belong to a stop string any more."""
        whole = self._ends[-1]
        begun = max((n for string in self._stops.strings for n in _begun(text[:whole], string)), default=0)
        if not begun and whole == len(text):
            self.open_from, self._ends = self.open_from + len(self._ends), []
            return
        done = bisect_left(self._ends, whole - begun)
        done += self._ends[done] == whole - begun > 0
        base = self._ends[done - 1] if done else 0
        self.open_from, self._ends = self.open_from + done, [end - base for end in self._ends[done:]]


def matched(expression: str, strand: Strand, token: int, since: int, stops: Stops, texts: Texts) -> Found | None:
    """What a host found by a regular `expression` as `token` was sampled behind the tokens of `strand`.

    Args:
        since: offset of the first token of the strand in which the host looked.
    """
    context, tokens = strand.tokens[max(0, since - _CONTEXT) : since], [*strand.tokens[since:], token]
    skipped = len(texts.text(context))
    ends = [len(texts.text([*context, *tokens[:n]])) - skipped for n in range(len(tokens) + 1)]
    text = texts.text([*context, *tokens])[skipped:]
    places = [match.span() for match in re.finditer(expression, text)]
    if not places:
        return None
    start, end = next((place for place in places if place[1] > ends[-2]), places[-1])
    return _place(expression, text, start, end if stops.keep else start, ends, since)


def _place(string: str, text: str, start: int, at: int, ends: Sequence[int], first: int) -> Found:
    """`string` begins at `start` of `text`, which is cut at `at`; its tokens, from offset `first` on, end at `ends`."""
    kept = bisect_left(ends, at)
    head = ""
    if ends[kept] != at:
        head = text[ends[kept - 1] : at]
        kept = bisect_left(ends, ends[kept - 1])
    return Found(string, first + kept, head, len(text) - start)


def _begun(text: str, string: str) -> Iterator[int]:
    """The lengths of beginnings of `string` that `text` ends with."""
    for length in range(min(len(string) - 1, len(text)), 0, -1):
        if text.endswith(string[:length]):
            yield length
            return
