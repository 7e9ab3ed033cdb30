"""What the parser asks about a token: its tag, the label it carries, whether it only separates.

Two vocabularies answer: `TextVocabulary` here, for text without a tokenizer, and `multiverse.binding.Binding` for ids.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from multiverse.dialects import Dialect, Tag
from multiverse.tree import Token

_LABEL = re.compile(r"\s*(\d+(?:\.\d+)*)")
LABEL_SCAN = 12
"""Tokens after outline-open in which a label is looked for."""

# Roughly the pieces a byte-pair tokenizer would make: short words with the space before them, single digits, runs of
# punctuation, runs of white space. The last alternative makes it total: joined pieces are the text.
_PIECES = r" ?[^\W\d_]{1,8}|\d| ?[^\w\s]{1,3}|\s+|."


def read_label(text: str) -> str | None:
    """The number `text` starts with (`2`, `1.2`), after white space; `None` if it starts with something else."""
    match = _LABEL.match(text)
    return match[1] if match else None


class Vocabulary(Protocol):
    """The parser's view of a dialect's tokens."""

    dialect: Dialect

    def tag(self, token: Token) -> Tag | None:
        """The tag that `token` is, or `None` for text."""

    def label(self, tokens: Sequence[Token], start: int) -> str | None:
        """The number that the text from `start` on begins with."""

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
                break
            text += str(token)
        return read_label(text)

    def separates(self, token: Token) -> bool:
        return str(token).isspace()

    def ends_turn(self, token: Token) -> bool:  # noqa: ARG002  # text without a tokenizer has no turns
        return False
