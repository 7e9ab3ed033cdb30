"""A prompt that a program put together: forked by its calls, not by tags, and joined on KV (SEMANTICS section 2).

A branch of such a block has no header and no separator: it begins at the position behind the prefix, moved by the
offset that the program gave it, and the text behind the block begins at the position behind the longest branch. What a
model wrote in between, with tags, is laid out as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from multiverse.decoding.prompt import Prompt
from multiverse.structure.binding import Binding
from multiverse.structure.builder import Builder
from multiverse.structure.layout import Separators
from multiverse.structure.tree import Block, Conclusion, Path, Transcript

Spans = list[Any]
"""Blocks as plain data: a block is a list of branches, a branch `[start, end, offset, blocks in it]`, in tokens."""


@dataclass(frozen=True)
class Laid:
    """A text in tokens.

    Attributes:
        text: the text.
        ids: its tokens.
        spans: the blocks in it that were joined.
    """

    text: str = ""
    ids: list[int] = field(default_factory=list)
    spans: Spans = field(default_factory=list)

    @property
    def reach(self) -> int:
        """Positions that it takes at most."""
        return reach(self.spans, 0, len(self.ids))


EMPTY = Laid()


class ProgramPrompt(Prompt):
    """A prompt with blocks that are known beforehand.

    Args:
        ids: its token ids.
        spans: the blocks that a program joined, in order.
        binding: the dialect; between the program's blocks, tags mean what they always do.
        separators: as for `Prompt`.
    """

    def __init__(self, ids: Sequence[int], spans: Spans, binding: Binding, separators: Separators = "overlap") -> None:
        self.ids = list(ids)
        self.separators = separators
        self._binding = binding
        blocks = self._body(0, spans, spans[-1][-1][1]) if spans else []
        before = self.ids[: spans[-1][-1][1]] if spans else []
        self._before = Transcript(binding.dialect.name, list(before), blocks)
        self._rest = Prompt(self.ids[len(self._before) :], binding, separators)
        self.frame, self.outlines, self.open_goal = self._rest.frame, self._rest.outlines, self._rest.open_goal
        self.transcript = self.complete(self._rest.transcript)

    def builder(self) -> Builder:
        """A builder that has read what comes behind the last block of the program."""
        return self._rest.builder()

    def complete(self, transcript: Transcript) -> Transcript:
        """Put what comes before in front of what `builder` began."""
        before = self._before
        shift(transcript.blocks, len(before))
        violations = [replace(violation, index=violation.index + len(before)) for violation in transcript.violations]
        tokens, blocks = [*before.tokens, *transcript.tokens], [*before.blocks, *transcript.blocks]
        return Transcript(transcript.dialect, tokens, blocks, violations)

    def _body(self, start: int, spans: Spans, end: int) -> list[Block]:
        """The blocks of one body: the program's and, between them, those that tags tell of."""
        blocks: list[Block] = []
        for branches in spans:
            blocks += self._read_tags(start, branches[0][0])
            paths = [
                Path(str(number), first, last, None, self._body(first, inner, last), offset)
                for number, (first, last, offset, inner) in enumerate(branches, 1)
            ]
            start = paths[-1].end
            blocks.append(Block(paths[0].start, start, 1, paths=paths))
        return blocks + self._read_tags(start, end)

    def _read_tags(self, start: int, end: int) -> list[Block]:
        blocks = Prompt(self.ids[start:end], self._binding, self.separators).transcript.blocks
        shift(blocks, start)
        return blocks


def reach(spans: Spans, start: int, end: int) -> int:
    """Positions from token `start` to `end` at most; fewer if tags in the text fork too."""
    positions, at = 0, start
    for branches in spans:
        positions += branches[0][0] - at
        positions += max(offset + reach(inner, first, last) for first, last, offset, inner in branches)
        at = branches[-1][1]
    return positions + end - at


def shifted(spans: Spans, by: int) -> Spans:
    """`spans`, `by` tokens on."""
    return [
        [[start + by, end + by, offset, shifted(inner, by)] for start, end, offset, inner in branches]
        for branches in spans
    ]


def shift(blocks: Sequence[Block], by: int) -> None:
    """Move `blocks`, with all in them, `by` tokens on."""
    for block in blocks:
        block.start, block.end = block.start + by, block.end + by
        block.goal_close = None if block.goal_close is None else block.goal_close + by
        bodies: list[Path | Conclusion] = [*block.paths, *([] if block.conclusion is None else [block.conclusion])]
        for outline in block.outlines:
            outline.start, outline.end = outline.start + by, outline.end + by
        for body in bodies:
            body.start, body.end = body.start + by, body.end + by
            body.close = None if body.close is None else body.close + by
            shift(body.blocks, by)
