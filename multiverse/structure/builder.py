"""Builds a tree token by token, for the parser and for the document of a request that grows.

A block that the engine would not fork whatever its limits are (no outline, a single one, nested where the dialect
forbids it) is marked sequential, so that a transcript is laid out as it was decoded.
"""

from __future__ import annotations

from collections.abc import Sequence

from multiverse.structure.dialects import Tag
from multiverse.structure.grammar import Frame, Grammar, Phase
from multiverse.structure.lexer import Vocabulary, branch_labels
from multiverse.structure.reasons import Reason
from multiverse.structure.stray import stray_text
from multiverse.structure.tree import Block, Conclusion, Outline, Path, Token, Transcript
from multiverse.structure.violations import Violations


class Builder:
    """A transcript as it grows.

    Attributes:
        transcript: what was built so far; spans of open nodes are not final before `finish`.
        frame: the state of the grammar.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.grammar = Grammar(vocabulary.dialect)
        self.frame: Frame = self.grammar.root()
        self.transcript = Transcript(vocabulary.dialect.name, [])
        self._violations = Violations(self.transcript, vocabulary)
        self._open: list[Block] = []

    def __len__(self) -> int:
        return len(self.transcript.tokens)

    def extend(self, tokens: Sequence[Token]) -> None:
        """Append tokens that come in document order."""
        base = len(self)
        self.transcript.tokens.extend(tokens)
        tag_of, ends_turn = self.vocabulary.tag, self.vocabulary.ends_turn
        for i, token in enumerate(tokens, base):
            tag = tag_of(token)
            if tag is not None:
                self._advance(tag, i)
            elif ends_turn(token) and self._open:
                self._end_turn(i)

    def open_path(self, tokens: Sequence[Token]) -> Frame:
        """Begin a path that the engine opened: `tokens` is path-open and header. Returns the parent's state."""
        parent = self.frame
        self.extend(tokens[:1])
        self.frame = self.grammar.branch(parent.depth)
        self.extend(tokens[1:])
        return parent

    def close_path(self, parent: Frame, tokens: Sequence[Token], close: int | None) -> None:
        """End the path begun by `open_path`, whatever is open inside it.

        Args:
            parent: what `open_path` returned.
            tokens: path-close and separator.
            close: the index of path-close within `tokens`.
        """
        start = len(self)
        self._close_blocks(parent.depth, start)
        self.transcript.tokens.extend(tokens)
        path = self._open[-1].paths[-1]
        path.close = None if close is None else start + close
        path.end = len(self)
        self.frame = self.grammar.close_path(parent)
        self._close_blocks(self.frame.depth, len(self))

    @property
    def open_blocks(self) -> list[Block]:
        """The blocks around the next token, outermost first."""
        return list(self._open)

    def drop(self, block: Block) -> None:
        """Let the open `block`, with all in it, be ordinary text."""
        at = self._open.index(block)
        siblings = self._body(self._open[at - 1]).blocks if at else self.transcript.blocks
        siblings.remove(block)
        del self._open[at:]
        while self.frame.parent is not None and self.frame.depth >= block.depth:
            self.frame = self.frame.parent

    def finish(self) -> Transcript:
        """The transcript, with everything that is still open ended where the tokens end."""
        end = len(self)
        if self._open:
            self._violations.text_ends(self._open[-1], end)
        self._end_open_nodes(end)
        self._close_blocks(0, end, complain=False)
        self._violations.place()
        self.transcript.stray_text = stray_text(self.transcript, self.vocabulary)
        return self.transcript

    def _advance(self, tag: Tag, index: int) -> None:
        before = self.frame
        after = self.grammar.advance(before, tag)
        if after is None:
            self._violations.unexpected(tag, index, before)
            return
        if before.phase is Phase.CONCLUDED and before.parent is not None and tag is not Tag.BLOCK_CLOSE:
            self._violations.unclosed(tag, index)
            before = before.parent
            self._close_blocks(before.depth, index)
        self.frame = after
        if after.depth > before.depth:
            self._open_block(index, after.depth)
        self._record(tag, index)
        self._close_blocks(after.depth, index + 1)

    def _record(self, tag: Tag, index: int) -> None:
        """Enter an expected tag into the innermost open block."""
        block, tokens = self._open[-1], self.transcript.tokens
        if tag in (Tag.OUTLINE_OPEN, Tag.GOAL_CLOSE) and block.outlines and not block.outlines[-1].end:
            self._end_outline(block, index)
        if tag is Tag.OUTLINE_OPEN:
            label = self.vocabulary.label(tokens, index + 1) or str(len(block.outlines) + 1)
            block.outlines.append(Outline(label, index, 0))
        elif tag is Tag.OUTLINE_CLOSE:
            self._end_outline(block, index + 1)
        elif tag is Tag.GOAL_CLOSE:
            block.goal_close = index
            block.reason = self._forbidden(block)
            self._name_outlines(block)
        elif tag is Tag.PATH_OPEN:
            self._end_open_nodes(index)
            block.paths.append(Path(self._path_label(block, index), index, 0))
        elif tag is Tag.PATH_CLOSE:
            self._close_own_path(block, index)
        elif tag is Tag.CONCLUSION_OPEN:
            self._end_open_nodes(index)
            block.conclusion = Conclusion(index, 0)
        elif tag is Tag.CONCLUSION_CLOSE and block.conclusion is not None:
            block.conclusion.close = index
            block.conclusion.end = index + 1
        elif tag is Tag.BLOCK_CLOSE:
            self._end_open_nodes(index)

    def _end_outline(self, block: Block, end: int) -> None:
        """The label is read again, since an outline that was open at the end of a prompt is all there only now."""
        outline = block.outlines[-1]
        outline.end = end
        outline.label = self.vocabulary.label(self.transcript.tokens, outline.start + 1) or str(len(block.outlines))

    @staticmethod
    def _name_outlines(block: Block) -> None:
        """Let the labels of a block whose goal is closed be distinct."""
        for outline, label in zip(block.outlines, branch_labels([o.label for o in block.outlines]), strict=True):
            outline.label = label

    def _close_own_path(self, block: Block, index: int) -> None:
        path = block.paths[-1]
        path.close = index
        if self.frame.depth < block.depth:  # nothing follows in the block: the path owns the separator alone
            path.end = index + 1
            while path.end < len(self) and self.vocabulary.separates(self.transcript.tokens[path.end]):
                path.end += 1

    def _path_label(self, block: Block, index: int) -> str:
        found = self.vocabulary.label(self.transcript.tokens, index + 1)
        ordinal = len(block.paths)
        named = block.outlines[ordinal].label if ordinal < len(block.outlines) else str(ordinal + 1)
        return found or named

    def _forbidden(self, block: Block) -> Reason | None:
        if block.width < 2:
            return Reason.SINGLE_OUTLINE if block.width else Reason.NO_OUTLINE
        if block.depth > 1 and not self.vocabulary.dialect.nesting:
            return Reason.TOO_DEEP
        return None

    def _open_block(self, index: int, depth: int) -> None:
        siblings = self._body(self._open[-1]).blocks if self._open else self.transcript.blocks
        block = Block(index, 0, depth)
        siblings.append(block)
        self._open.append(block)
        if depth > 1 and not self.vocabulary.dialect.nesting:
            self._violations.nested(index)

    @staticmethod
    def _body(block: Block) -> Path | Conclusion:
        """The path or conclusion of `block` that is open."""
        return block.conclusion or block.paths[-1]

    def _close_blocks(self, depth: int, end: int, complain: bool = True) -> None:
        """End open blocks until `depth` are left."""
        while len(self._open) > depth:
            self._end_open_nodes(end)
            block = self._open.pop()
            block.end = max(end, block.paths[-1].end if block.paths else 0)
            if complain:
                self._violations.check_complete(block, end - 1)

    def _end_open_nodes(self, end: int) -> None:
        """Give the innermost block's unfinished outline, path or conclusion the end it turned out to have."""
        if not self._open:
            return
        block = self._open[-1]
        nodes: list[Outline | Path | Conclusion] = [*block.outlines[-1:], *block.paths[-1:]]
        for node in (*nodes, *([block.conclusion] if block.conclusion else [])):
            node.end = node.end or end

    def _end_turn(self, index: int) -> None:
        self._violations.turn_ends(index)
        self._close_blocks(0, index, complain=False)
        self.frame = self.grammar.root()
