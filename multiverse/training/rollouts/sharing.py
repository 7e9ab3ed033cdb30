"""Answers that begin alike, in one row: what they share is there, and is computed, once.

To the masks the rests of the answers are what paths of a block are: each sees what it shares, and itself. What two rows
share is the run of first tokens that are equal in id, position and what they see; for answers to one prompt that is the
prompt at least. A later token sees earlier ones only, so the run needs nothing of what comes behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from multiverse.structure.layout import Interval, Layout, Segment
from multiverse.training.rollouts.rows import Prediction, Row


@dataclass(frozen=True, slots=True)
class _Piece:
    """The tokens `[start, end)` of a row stand from `at` on in the shared one."""

    start: int
    end: int
    at: int


def share(rows: Sequence[Row]) -> Row:
    """One row of `rows`, in order, in which what they begin with in common is there once.

    The loss over its predictions, and its gradients, are those of the rows apart.
    """
    ids: list[int] = []
    segments: list[Segment] = []
    predictions: list[Prediction] = []
    placed: list[tuple[Row, list[_Piece]]] = []
    rollouts = 0
    for row in rows:
        kept, pieces = max(((_common(row, other), known) for other, known in placed), default=(0, []), key=_first)
        pieces = [*_clipped(pieces, kept), _Piece(kept, len(row), len(ids))]
        ids += row.ids[kept:]
        segments += [_moved(segment, kept, pieces) for segment in row.layout.segments if segment.end > kept]
        places = _places(pieces)
        predictions += [p._replace(place=places[p.place], rollout=p.rollout + rollouts) for p in row.predictions]
        rollouts += row.rollouts
        placed.append((row, pieces))
    return Row(ids, Layout(tuple(segments), len(ids), rows[-1].layout.next_position), predictions)


def _first(found: tuple[int, list[_Piece]]) -> int:
    return found[0]


def _common(one: Row, other: Row) -> int:
    """How many tokens both begin with."""
    count = 0
    for mine, theirs in zip(_seen(one), _seen(other), strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def _seen(row: Row) -> Iterator[tuple[int, int, tuple[Interval, ...]]]:
    """Of every token its id, its position, and what it does not see."""
    for segment in row.layout.segments:
        for at in range(segment.start, segment.end):
            yield row.ids[at], segment.position + at - segment.start, segment.hidden


def _clipped(pieces: Iterable[_Piece], end: int) -> Iterator[_Piece]:
    """The pieces of the tokens before `end`."""
    for piece in pieces:
        if piece.start < min(piece.end, end):
            yield _Piece(piece.start, min(piece.end, end), piece.at)


def _places(pieces: Iterable[_Piece]) -> list[int]:
    """Where each token of the row stands."""
    return [piece.at + at - piece.start for piece in pieces for at in range(piece.start, piece.end)]


def _moved(segment: Segment, kept: int, pieces: Sequence[_Piece]) -> Segment:
    """What of `segment` lies behind the `kept` tokens, where it stands now."""
    start = max(segment.start, kept)
    by = pieces[-1].at - kept
    seen = [*segment.visible(), (segment.start, start)]
    visible = sorted(interval for one in seen for interval in _intervals(one, pieces))
    before = segment.predecessor if start == segment.start else start - 1
    predecessor = -1 if before < 0 else next(_intervals((before, before + 1), pieces))[0]
    position = segment.position + start - segment.start
    return Segment(start + by, segment.end + by, position, tuple(_gaps(visible, start + by)), predecessor)


def _intervals(interval: Interval, pieces: Iterable[_Piece]) -> Iterator[Interval]:
    """Where the tokens of `interval` stand."""
    for piece in pieces:
        start, end = max(interval[0], piece.start), min(interval[1], piece.end)
        if start < end:
            yield start - piece.start + piece.at, end - piece.start + piece.at


def _gaps(visible: Iterable[Interval], end: int) -> Iterator[Interval]:
    """What lies between intervals that are in order, from 0 to `end`."""
    at = 0
    for start, stop in visible:
        if start > at:
            yield at, start
        at = max(at, stop)
    if end > at:
        yield at, end
