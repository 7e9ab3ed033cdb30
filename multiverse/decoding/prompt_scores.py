"""Scores of a prompt's tokens (SEMANTICS section 6): collected while its strands are computed, read in document order.

A token is scored by the logits of its predecessor, which may lie in another strand: those of the token before the first
path predict the first token of every path. Whatever a host computes, in parts or in one go, in chunks or again after a
replay, it asks here which tokens its computed ones predict, and records what it found.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from multiverse.decoding.prompt import Prompt
from multiverse.decoding.strand import Strand

Row = TypeVar("Row")


class Target(NamedTuple):
    """A prompt token that is to be scored.

    Attributes:
        at: index of its predecessor in the KV sequence of the strand that computes it.
        token: its id.
        place: its own index in the prompt.
    """

    at: int
    token: int
    place: int


class PromptScores(Generic[Row]):
    """The rows of one prompt, of whatever kind a host has.

    Args:
        prompt: as the controller reads it.
        start: the first token that was asked for; tokens before it, and this one, have no row.

    Attributes:
        first: index of the first token that has to be computed, since its logits score another; the prompt's length if
            none has to be.
    """

    def __init__(self, prompt: Prompt, start: int = 0) -> None:
        self._ids, self._start = prompt.ids, start
        self._predicted: dict[int, list[int]] = {}
        for place, before in enumerate(prompt.layout.predecessors):
            if before >= 0 and place > start:
                self._predicted.setdefault(before, []).append(place)
        self._places: dict[tuple[int, ...], tuple[int, int]] = {}
        _note_places(prompt.strand, 0, 0, self._places)
        self._missing = {place for places in self._predicted.values() for place in places}
        self._rows: dict[int, Row] = {}
        self.first = min(self._predicted, default=len(self._ids))

    def targets(self, key: tuple[int, ...], start: int, end: int) -> list[Target]:
        """What the tokens `[start, end)` of the KV sequence of the strand `key` predict, as far as they are its own.

        None of them may be a branch's of its, unless that is computed with it.
        """
        if key not in self._places:
            return []
        first, shift = self._places[key]
        stop = min(end, len(self._ids) - shift)  # what a root has sampled is no prompt
        return [
            Target(at, self._ids[place], place)
            for at in range(max(start, first), stop)
            for place in self._predicted.get(at + shift, ())
        ]

    def record(self, place: int, row: Row) -> None:
        """Note the row of the token at `place`; a later one of the same token counts."""
        self._rows[place] = row
        self._missing.discard(place)

    @property
    def complete(self) -> bool:
        """Whether every token that is predicted by another has its row."""
        return not self._missing

    def rows(self) -> list[Row | None]:
        """A row per token from the first that was asked for; `None` for that one and where nothing predicts a token."""
        assert self.complete
        return [self._rows.get(place) for place in range(self._start, len(self._ids))]


def _note_places(strand: Strand, kv: int, document: int, places: dict[tuple[int, ...], tuple[int, int]]) -> int:
    """Note for `strand` and all below where its own tokens begin in its KV sequence, and how far indices in the prompt
    run ahead of those from there on.

    Args:
        kv, document: the two indices of its first token.

    Returns:
        the index in the prompt at which it ends.
    """
    places[strand.key] = kv, document - kv
    shift, offset = document - kv, 0
    for fork, children in strand.forks:
        document += fork - offset
        offset, fork_kv = fork, document - shift
        for child in children:
            document = _note_places(child, fork_kv, document, places)
    return document + len(strand.tokens) - offset
