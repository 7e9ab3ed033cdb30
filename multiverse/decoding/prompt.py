"""A prompt that may hold blocks: its positions, and where in the grammar it leaves the completion.

Finished blocks (an earlier turn of the conversation) are laid out like any other. An open block is continued if the
prompt ends in or right after its goal, or in its conclusion. One that ends in between is ordinary text, since its
branches can't be taken up again one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from multiverse.decoding.strand import Status, Strand
from multiverse.structure.binding import Binding
from multiverse.structure.builder import Builder
from multiverse.structure.grammar import Frame, Phase
from multiverse.structure.layout import Layout, Separators, layout, parallel_blocks
from multiverse.structure.lexer import LABEL_SCAN
from multiverse.structure.tree import Block, Transcript


class Prompt:
    """A parsed prompt.

    Attributes:
        ids: its token ids.
        transcript: its blocks.
        frame: state of the grammar at its end.
        outlines: labels of the outlines of a goal that it leaves open or has just closed; for an outline that is
            still open the offset, not positive, at which its label begins before the end of the prompt.
        open_goal: if the prompt ends with goal-close, how many separator tokens follow it; else `None`.
    """

    def __init__(self, ids: Sequence[int], binding: Binding, separators: Separators = "overlap") -> None:
        self.ids = list(ids)
        self.separators: Separators = separators
        self._binding = binding
        self.outlines: list[str | int] = []
        self.open_goal: int | None = None
        if binding.tags.keys().isdisjoint(self.ids):  # most prompts, and some are long
            self.frame: Frame = Frame(Phase.ROOT)
            self.transcript = Transcript(binding.dialect.name, list(self.ids))
            return
        builder = self.builder()
        self.frame = builder.frame
        if self.frame.phase in (Phase.GOAL, Phase.OUTLINE, Phase.MAPPED):
            block = builder.open_blocks[-1]
            self.outlines = [outline.label for outline in block.outlines]
            if self.frame.phase is Phase.OUTLINE:
                self.outlines[-1] = block.outlines[-1].start + 1 - len(self.ids)
            if block.goal_close is not None:
                self.open_goal = len(self.ids) - block.goal_close - 1
        self.transcript = builder.finish()

    def builder(self) -> Builder:
        """A builder that has read the prompt, ready for what follows."""
        builder = Builder(self._binding)
        builder.extend(self.ids)
        for block in builder.open_blocks:
            if self._lost(block):
                builder.drop(block)
                break
        return builder

    def label(self, outline: str | int, generated: list[int]) -> str | None:
        """The label of an outline, which begins at that offset of what was `generated`, or so far before its start."""
        if isinstance(outline, str):
            return outline
        if outline > 0:
            return self._binding.label(generated, outline)
        begun = self.ids[len(self.ids) + outline :]
        return self._binding.label([*begun, *generated[:LABEL_SCAN]], 0)

    def complete(self, transcript: Transcript) -> Transcript:
        """The whole of what `builder` began: nothing came before it here."""
        return transcript

    def _lost(self, block: Block) -> bool:
        """Whether the open `block` is past the point where it can fork, and short of its conclusion."""
        if block.goal_close is None or block.conclusion is not None:
            return False
        return bool(block.paths) or not all(map(self._binding.separates, self.ids[block.goal_close + 1 :]))

    @cached_property
    def layout(self) -> Layout:
        """Positions and visibility of the prompt."""
        return layout(self.transcript, self.separators, self._binding.dialect.join)

    @cached_property
    def strand(self) -> Strand:
        """The prompt as a strand with closed branches, so that its blocks are computed as they once were decoded."""
        blocks = self.transcript.blocks if self._binding.dialect.join == "splice" else []
        return self._strand(None, (), 0, len(self.ids), blocks, 0)

    def _strand(
        self, parent: Strand | None, key: tuple[int, ...], start: int, end: int, blocks: list[Block], kv_length: int
    ) -> Strand:
        """The strand of the tokens `[start, end)`, a path or the whole prompt, in which `blocks` lie."""
        strand = Strand(key, "", parent, self.frame)
        strand.status, strand.kv_length = Status.CLOSED, kv_length
        positions = self.layout.positions
        at = start
        for ordinal, block in enumerate(parallel_blocks(blocks), 1):
            fork = block.paths[0].start
            self._read(strand, at, fork, positions)
            children = tuple(
                self._strand(strand, (*key, -ordinal, i), path.start, path.end, path.blocks, strand.kv_length)
                for i, path in enumerate(block.paths)
            )
            strand.forks.append((len(strand.tokens), children))
            strand.kv_length += sum(child.kv_length - strand.kv_length for child in children)
            at = block.paths[-1].end
        self._read(strand, at, end, positions)
        return strand

    def _read(self, strand: Strand, start: int, end: int, positions: list[int]) -> None:
        """Give `strand` the tokens `[start, end)`; the delta is that of the first of them."""
        first = positions[start] if start < len(positions) else self.layout.next_position
        strand.deltas.append(first - strand.kv_length)
        strand.tokens += self.ids[start:end]
        strand.kv_length += end - start

    @property
    def next_position(self) -> int:
        """Position of the first token after the prompt."""
        return self.layout.next_position if self.transcript.blocks else len(self.ids)
