"""From tokens to a tree. Every input parses; what breaks the grammar is ordinary text and is listed."""

from __future__ import annotations

from collections.abc import Sequence

from multiverse.structure.builder import Builder
from multiverse.structure.dialects import Dialect, registry
from multiverse.structure.lexer import TextVocabulary, Vocabulary
from multiverse.structure.tree import Token, Transcript


def parse_text(text: str, dialect: Dialect | str = "multiverse") -> Transcript:
    """Parse `text`. Its tokens are pieces of text, about as many as a tokenizer would make.

    Raises:
        DialectError: if `dialect` is a name that is not known.
    """
    vocabulary = TextVocabulary(registry.get(dialect) if isinstance(dialect, str) else dialect)
    return parse(vocabulary.tokens(text), vocabulary)


def parse_ids(ids: Sequence[int], binding: Vocabulary) -> Transcript:
    """Parse token ids; `binding` is a dialect bound to their tokenizer (`multiverse.structure.binding.bind`)."""
    return parse(list(ids), binding)


def parse(tokens: list[Token], vocabulary: Vocabulary) -> Transcript:
    """Parse tokens of either kind."""
    builder = Builder(vocabulary)
    builder.extend(tokens)
    return builder.finish()
