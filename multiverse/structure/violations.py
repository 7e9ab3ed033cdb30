"""What breaks the grammar in a transcript, in words and with its place."""

from __future__ import annotations

from multiverse.structure.dialects import Tag
from multiverse.structure.grammar import Frame, Phase
from multiverse.structure.lexer import Vocabulary
from multiverse.structure.tree import Block, Transcript, Violation

_WHERE = {
    Phase.ROOT: "outside of a block",
    Phase.BRANCH: "in a path",
    Phase.PATH: "in a path",
    Phase.CONCLUSION: "in a conclusion",
    Phase.OPENED: "before the goal",
    Phase.GOAL: "between outlines",
    Phase.OUTLINE: "in an outline",
    Phase.MAPPED: "between paths",
    Phase.CONCLUDED: "after the conclusion",
    Phase.CLOSED: "after the path",
}


class Violations:
    """Lists the violations of a transcript in it, as its tokens are read.

    Args:
        transcript: to which they are added.
        vocabulary: for the spelling of its tags.
    """

    def __init__(self, transcript: Transcript, vocabulary: Vocabulary) -> None:
        self._transcript, self._vocabulary = transcript, vocabulary

    def unexpected(self, tag: Tag, index: int, frame: Frame) -> None:
        """`tag` does not follow in the state `frame`."""
        self._note(index, self._text(tag), f"{self._text(tag)} is not expected {_WHERE[frame.phase]}")

    def unclosed(self, tag: Tag, index: int) -> None:
        """`tag` follows a block that has its conclusion and was not closed."""
        missing = self._text(Tag.BLOCK_CLOSE)
        self._note(index, self._text(tag), f"{missing} is missing before {self._text(tag)}")

    def nested(self, index: int) -> None:
        """A block begins in another, in a dialect that has no such thing."""
        self._note_at(index, f"a block inside a block is not part of {self._transcript.dialect}")

    def turn_ends(self, index: int) -> None:
        """The turn ends before its blocks do."""
        self._note_at(index, "the turn ends inside a block")

    def text_ends(self, block: Block, end: int) -> None:
        """The text ends before `block` does."""
        self._note(end, "end of text", f"the block opened at token {block.start} is not closed")

    def check_complete(self, block: Block, index: int) -> None:
        """Note what `block`, which ends with the token at `index`, lacks."""
        opened = f"the block opened at token {block.start}"
        if block.goal_close is None:
            self._note_at(index, f"{opened} ends without a goal")
        elif not block.outlines:
            self._note_at(index, f"{opened} has no outline")
        elif len(block.paths) != block.width:
            self._note_at(index, f"{opened} has {block.width} outlines but {len(block.paths)} paths")
        elif self._vocabulary.dialect.conclusion and block.conclusion is None:
            self._note_at(index, f"{opened} ends without a conclusion")

    def place(self) -> None:
        """Fill in character offsets, if tokens are text, in one pass."""
        tokens, violations = self._transcript.tokens, self._transcript.violations
        if not violations or (tokens and not isinstance(tokens[0], str)):
            return
        offsets, at = [0], 0
        for token in tokens:
            at += len(str(token))
            offsets.append(at)
        self._transcript.violations = [Violation(v.index, offsets[v.index], v.found, v.message) for v in violations]

    def _text(self, tag: Tag) -> str:
        return self._vocabulary.dialect.tags.get(tag, str(tag))

    def _note_at(self, index: int, message: str) -> None:
        token = self._transcript.tokens[index]
        tag = self._vocabulary.tag(token)
        self._note(index, str(token) if tag is None else self._text(tag), message)

    def _note(self, index: int, found: str, message: str) -> None:
        self._transcript.violations.append(Violation(index, None, found, message))
