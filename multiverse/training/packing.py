"""Several examples in one row, each isolated from the others by the row's layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from multiverse.structure.layout import Layout, Segment
from multiverse.training.encode import Encoded


def concatenate(layouts: Sequence[Layout]) -> Layout:
    """The layout of documents that stand behind each other and don't see each other; positions restart with each."""
    segments: list[Segment] = []
    base = 0
    for laid in layouts:
        before = ((0, base),) if base else ()
        for segment in laid.segments:
            hidden = before + tuple((start + base, end + base) for start, end in segment.hidden)
            predecessor = segment.predecessor + base if segment.predecessor >= 0 else -1
            segments.append(Segment(segment.start + base, segment.end + base, segment.position, hidden, predecessor))
        base += laid.length
    return Layout(tuple(segments), base, layouts[-1].next_position)


def join(examples: Sequence[Encoded]) -> Encoded:
    """One row of `examples`, in order."""
    if len(examples) == 1:
        return replace(examples[0])
    return Encoded(
        [token for example in examples for token in example.ids],
        [target for example in examples for target in example.targets],
        concatenate([example.layout for example in examples]),
    )


def pack(examples: Sequence[Encoded], length: int, rng: Random) -> list[Encoded]:
    """Put examples into rows of at most `length` tokens: the longest first, each into the fullest row that has room.

    Args:
        examples: none longer than `length`.
        length: tokens per row.
        rng: shuffles the rows, so that long examples don't all come first.
    """
    rows: list[list[Encoded]] = []
    room: dict[int, list[int]] = {}  # tokens left -> indices of rows
    for example in sorted(examples, key=len, reverse=True):
        left = min((tokens for tokens in room if tokens >= len(example)), default=None)
        if left is None:
            rows.append([])
            row, left = len(rows) - 1, length
        else:
            row = room[left].pop()
            if not room[left]:
                del room[left]
        rows[row].append(example)
        room.setdefault(left - len(example), []).append(row)
    for row_examples in rows:
        rng.shuffle(row_examples)
    rng.shuffle(rows)
    return [join(row_examples) for row_examples in rows]


def pack_in_order(examples: Sequence[Encoded], length: int) -> list[Encoded]:
    """Rows of neighbours, at most `length` tokens each, so that what grows harder does so from row to row as well.

    Args:
        examples: none longer than `length`.
        length: tokens per row.
    """
    rows: list[list[Encoded]] = []
    tokens = 0
    for example in examples:
        if not rows or tokens + len(example) > length:
            rows.append([])
            tokens = 0
        rows[-1].append(example)
        tokens += len(example)
    return [join(row) for row in rows]
