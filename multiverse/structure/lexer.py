"""What the parser asks about a token: its tag, the label it carries, whether it only separates.

Two vocabularies answer: `TextVocabulary` here, for text without a tokenizer, and `Binding` for ids.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from multiverse.structure.dialects import Dialect, Tag
from multiverse.structure.tree import Token

_LABEL = re.compile(r"\s*([0-9]++(?:\.[0-9]++)*+)(?:[:.)]|(\s*\Z))")
LABEL_SCAN = 12
"""Tokens after outline-open in which a label is looked for."""

# Roughly the pieces a byte-pair tokenizer would make: short words with the space before them, single digits, runs of
# punctuation, runs of white space. The last alternative makes it total: joined pieces are the text.
_PIECES = r" ?[^\W\d_]{1,8}|\d| ?[^\w\s]{1,3}|\s+|."


def read_label(text: str, whole: bool) -> str | None:
    """The number `text` starts with (`2`, `1.2`), after white space, if `:`, `.` or `)` or the end follows it.

    Args:
        text: the beginning of an outline.
        whole: whether that is all of it. If not, its end is not that of the outline.
    """
    match = _LABEL.match(text)
    return match[1] if match and (whole or match[2] is None) else None


def branch_labels(found: Sequence[str | None]) -> list[str]:
    """The labels of a block, all distinct, from what `read_label` found in its outlines.

    An outline without a number gets its ordinal; if two labels would be the same then, all get their ordinals.
    """
    labels = [label or str(ordinal) for ordinal, label in enumerate(found, 1)]
    if len(set(labels)) < len(labels):
        return [str(ordinal) for ordinal in range(1, len(labels) + 1)]
    return labels


class Vocabulary(Protocol):
    """The parser's view of a dialect's tokens.

    Attributes:
        goal_separator, path_separator, last_separator: what an engine writes before, between and behind the paths.
    """

    dialect: Dialect

    @property
    def goal_separator(self) -> tuple[Token, ...]: ...
    @property
    def path_separator(self) -> tuple[Token, ...]: ...
    @property
    def last_separator(self) -> tuple[Token, ...]: ...

    def tag(self, token: Token) -> Tag | None:
        """The tag that `token` is, or `None` for text."""

    def label(self, tokens: Sequence[Token], start: int) -> str | None:
        """The label that the text from `start` on begins with; see `read_label`."""

    def separates(self, token: Token) -> bool:
        """Whether `token` is white space."""

    def ends_turn(self, token: Token) -> bool:
        """Whether `token` ends a turn of a chat, and with it whatever is open."""


class TextVocabulary:
    """Tokens are pieces of text. Their number only approximates that of a tokenizer; the structure is exact."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._tags = {text: tag for tag, text in dialect.tags.items()}
        longest_first = sorted(self._tags, key=len, reverse=True)
        alternatives = "|".join(map(re.escape, longest_first))
        self._split = re.compile(f"({alternatives})")
        self._pieces = re.compile(_PIECES, re.DOTALL)
        self.goal_separator = tuple(self.tokens(dialect.separator_at("goal")))
        self.path_separator = tuple(self.tokens(dialect.separator_at("path")))
        self.last_separator = tuple(self.tokens(dialect.separator_at("last")))

    def tokens(self, text: str) -> list[Token]:
        """Cut `text` into tags and pieces; joined, they are `text` again."""
        pieces: list[Token] = []
        for i, part in enumerate(self._split.split(text)):
            if i % 2:
                pieces.append(part)
            else:
                pieces.extend(self._pieces.findall(part))
        return pieces

    def tag(self, token: Token) -> Tag | None:
        return self._tags.get(token)  # type: ignore[arg-type]  # a token of another kind has no tag

    def label(self, tokens: Sequence[Token], start: int) -> str | None:
        text = ""
        for token in tokens[start : start + LABEL_SCAN]:
            if token in self._tags:
                return read_label(text, whole=True)
            text += str(token)
        whole = len(tokens) <= start + LABEL_SCAN
        return read_label(text if whole else text.rstrip("."), whole)  # what is cut off may be a longer number

    def separates(self, token: Token) -> bool:
        return str(token).isspace()

    def ends_turn(self, token: Token) -> bool:  # noqa: ARG002  # text without a tokenizer has no turns
        return False
