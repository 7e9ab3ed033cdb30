"""From a tree to positions and visibility (SEMANTICS section 2). The only place where either is decided.

A layout is a list of segments: runs of tokens with consecutive positions whose tokens all see the same past. Dense
masks, block masks and position ids are views of it. Building one costs time proportional to the number of tokens (for
the position list) and of paths (for the rest).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from multiverse.structure.tree import Block, Path, Transcript

Separators = Literal["overlap", "advance"]
Interval = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens in linear order.

    Attributes:
        start, end: token indices, `[start, end)`.
        position: position id of the token at `start`; it rises by one per token.
        hidden: intervals of earlier tokens that these tokens don't see, in order, at most one per nested path.
        predecessor: index of the token whose logits predict the one at `start`; -1 if there is none, as for the
            first token of all and for the first one after a join.
    """

    start: int
    end: int
    position: int
    hidden: tuple[Interval, ...]
    predecessor: int

    def visible(self) -> Iterator[Interval]:
        """The intervals before `start` that these tokens see, in order."""
        at = 0
        for start, end in self.hidden:
            if start > at:
                yield at, start
            at = end
        if self.start > at:
            yield at, self.start


@dataclass(frozen=True)
class Layout:
    """Positions and visibility of a transcript of `length` tokens.

    Attributes:
        segments: in linear order, covering `[0, length)`.
        length: number of tokens, which is the length of the KV sequence.
        next_position: position of a token that would follow.
    """

    segments: tuple[Segment, ...]
    length: int
    next_position: int

    @property
    def position_delta(self) -> int:
        """`next_position - length`, never positive."""
        return self.next_position - self.length

    @cached_property
    def positions(self) -> list[int]:
        """Position id of every token: `length` integers."""
        positions: list[int] = []
        for segment in self.segments:
            positions.extend(range(segment.position, segment.position + segment.end - segment.start))
        return positions

    @cached_property
    def predecessors(self) -> list[int]:
        """For every token the index of the one whose logits predict it, or -1: `length` integers."""
        predecessors = list(range(-1, self.length - 1))
        for segment in self.segments:
            predecessors[segment.start] = segment.predecessor
        return predecessors

    def critical_path(self, start: int = 0) -> int:
        """Number of positions from the token at index `start` to the last one: what latency scales with."""
        if start >= self.length:
            return 0
        last = max(s.position + s.end - s.start - 1 for s in self.segments if s.end > start)
        return last - self.positions[start] + 1


def layout(transcript: Transcript, separators: Separators = "overlap", join: str = "splice") -> Layout:
    """Lay `transcript` out.

    Args:
        transcript: a tree; its sequential blocks count as plain text.
        separators: `overlap` if the tag after a reset shares the position of the separator before it, as the released
            models were trained; `advance` if separators take positions of their own.
        join: `prefill` for dialects whose joined text is read causally: then there is no structure in the layout.

    Raises:
        ValueError: if `separators` is something else.
    """
    if separators not in ("overlap", "advance"):
        raise ValueError(f"separators must be 'overlap' or 'advance', got {separators!r}")
    writer = _Writer(advance=separators == "advance")
    blocks = transcript.blocks if join == "splice" else []
    position = writer.body(0, len(transcript), blocks, 0, (), -1)
    return Layout(tuple(writer.segments), len(transcript), position)


class _Writer:
    """Appends segments in linear order; recursion follows nesting, which the grammar bounds."""

    def __init__(self, advance: bool) -> None:
        self.advance = advance
        self.segments: list[Segment] = []

    def body(
        self, start: int, end: int, blocks: list[Block], position: int, hidden: tuple[Interval, ...], predecessor: int
    ) -> int:
        """Lay out `[start, end)`, a body with `blocks` in it, from `position` on. Returns the next position."""
        for block in parallel_blocks(blocks):
            fork = block.paths[0].start
            self._run(start, fork, position, hidden, predecessor)
            position = self._block(block, position + fork - start, hidden)
            start, predecessor = block.paths[-1].end, -1
        self._run(start, end, position, hidden, predecessor)
        return position + end - start

    def _block(self, block: Block, position: int, hidden: tuple[Interval, ...]) -> int:
        """Lay out the paths of `block`; `position` follows the separator after goal-close. Returns where they join."""
        fork = block.paths[0].start
        if not self.advance and block.goal_close is not None:
            position -= fork - block.goal_close - 1
        joins = []
        for path in block.paths:
            siblings = ((fork, path.start),) if path.start > fork else ()
            begin = position + path.offset
            after = self.body(path.start, path.end, path.blocks, begin, hidden + siblings, fork - 1)
            joins.append(after if self.advance else after - _separator_length(path))
        return max(joins)

    def _run(self, start: int, end: int, position: int, hidden: tuple[Interval, ...], predecessor: int) -> None:
        if end > start:
            self.segments.append(Segment(start, end, position, hidden, predecessor))


def _separator_length(path: Path) -> int:
    return 0 if path.close is None else path.end - path.close - 1


def parallel_blocks(blocks: list[Block]) -> Iterator[Block]:
    """The parallel blocks of one body in order: also those in conclusions and in sequential blocks, which belong to
    the same body as far as positions go. Not those in paths of parallel blocks."""
    for block in blocks:
        if not block.parallel:
            yield from parallel_blocks(block.inner())
            continue
        yield block
        if block.conclusion is not None:
            yield from parallel_blocks(block.conclusion.blocks)
