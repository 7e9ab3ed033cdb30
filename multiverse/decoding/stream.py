"""From strands to what a client sees: one text in document order, or events per branch.

Both streams are cursors over the strands of a controller: they own no tokens and may be asked at any time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from multiverse.decoding.actions import Action, Close, Fallback, Finish, Fork, Join, Start
from multiverse.decoding.strand import Status, Strand

Span = tuple[Strand, int, int]
"""Tokens `[start, end)` of a strand."""


@dataclass(slots=True)
class _Place:
    """How far a strand was read: `offset` of its tokens, its fork `fork`, of that the child `child`."""

    strand: Strand
    offset: int = 0
    fork: int = 0
    child: int = 0


class DocumentStream:
    """A request's tokens in document order, each exactly once, as early as that order allows.

    The first open branch is live; the later ones are held back until those before them are closed, and so is what may
    turn out to be a stop string in a branch.

    Attributes:
        shown: number of tokens shown so far.
    """

    def __init__(self, root: Strand) -> None:
        self.shown = 0
        self._places = [_Place(root)]

    def skip(self, tokens: int) -> None:
        """Count the first `tokens` of the root, before any fork, as shown: the host has shown them by itself."""
        self._places[0].offset = self.shown = tokens

    def drain(self) -> list[int]:
        """The tokens that can be shown now and were not shown before."""
        return tokens_of(self.drain_spans())

    def follow(self, strand: Strand, tokens: int) -> bool:
        """All that can be shown was; then `strand` became longer by `tokens`, and nothing else happened.

        Returns:
            whether those are shown, as it is the live one.
        """
        place = self._places[-1]
        if place.strand is not strand:
            return False
        assert place.offset + tokens == len(strand.tokens)
        place.offset += tokens
        self.shown += tokens
        return True

    def drain_spans(self) -> list[Span]:
        """The same as spans of strands, in document order."""
        spans: list[Span] = []
        while True:
            place = self._places[-1]
            strand = place.strand
            forked = place.fork < len(strand.forks)
            end = strand.forks[place.fork][0] if forked else strand.settled
            if end > place.offset:
                spans.append((strand, place.offset, end))
                self.shown += end - place.offset
                place.offset = end
            if forked and place.child < len(strand.forks[place.fork][1]):
                self._places.append(_Place(strand.forks[place.fork][1][place.child]))
                place.child += 1
            elif forked:
                place.fork, place.child = place.fork + 1, 0
            elif len(self._places) > 1 and strand.status is Status.CLOSED:
                self._places.pop()
            else:
                return spans


def tokens_of(spans: Iterable[Span]) -> list[int]:
    """The tokens of `spans`, in their order."""
    return [token for strand, start, end in spans for token in strand.tokens[start:end]]


@dataclass(frozen=True, slots=True)
class BranchEvent:
    """Something that happened to one strand.

    Attributes:
        kind: `delta` (new tokens), `fork`, `close`, `join`, `fallback`, `finish`.
        key: the strand, `()` for the root.
        label: its label, empty for the root.
        tokens: the new tokens of a `delta`.
        branches: key and label of each branch of a `fork`.
        reason: why, for `close`, `fallback` and `finish`.
    """

    kind: Literal["delta", "fork", "close", "join", "fallback", "finish"]
    key: tuple[int, ...]
    label: str
    tokens: tuple[int, ...] = ()
    branches: tuple[tuple[tuple[int, ...], str], ...] = ()
    reason: str | None = None


class EventStream:
    """A request as events per strand, in the order they happen. No token comes twice.

    None is held back but those that may yet be taken back, as a stop string may have begun.
    """

    def __init__(self, root: Strand) -> None:
        self._root = root
        self._offsets: dict[tuple[int, ...], int] = {}

    def push(self, strand: Strand, actions: Iterable[Action]) -> list[BranchEvent]:
        """The events of one `Controller.accept(strand, ...)` that returned `actions`."""
        events: list[BranchEvent] = []
        for action in actions:
            events += self._of(action)
        return events + self._delta(strand)

    def _of(self, action: Action) -> list[BranchEvent]:
        match action:
            case Fork(strand=strand, children=children):
                branches = tuple((child.key, child.label) for child in children)
                return [*self._delta(strand), BranchEvent("fork", strand.key, strand.label, branches=branches)]
            case Start(strand=strand):
                return self._delta(strand)
            case Close(strand=strand, reason=reason):
                return [*self._delta(strand), BranchEvent("close", strand.key, strand.label, reason=reason)]
            case Join(strand=strand):
                return [BranchEvent("join", strand.key, strand.label), *self._delta(strand)]
            case Fallback(strand=strand, reason=why):
                return [*self._delta(strand), BranchEvent("fallback", strand.key, strand.label, reason=why)]
            case Finish(reason=reason):
                rest = [event for strand in self._root.walk() for event in self._delta(strand)]
                return [*rest, BranchEvent("finish", (), "", reason=reason)]

    def _delta(self, strand: Strand) -> list[BranchEvent]:
        start = self._offsets.get(strand.key, 0)
        tokens = tuple(strand.tokens[start : strand.settled])
        self._offsets[strand.key] = start + len(tokens)
        return [BranchEvent("delta", strand.key, strand.label, tokens)] if tokens else []
