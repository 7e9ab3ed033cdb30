"""Text between the parts of a block, where an engine that forks writes separators and nothing else.

It does not break the grammar and belongs to the path before it (SEMANTICS section 1). But no engine that forks will
ever write it, so a model must not learn it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from multiverse.structure.lexer import Vocabulary
from multiverse.structure.tree import Block, Token, Transcript

Span = tuple[int, int]


def stray_text(transcript: Transcript, vocabulary: Vocabulary) -> list[Span]:
    """Where more than a separator stands behind the goal or a path of a parallel block.

    A missing separator is none, nor is what follows the last path where that ends the block.

    Returns:
        spans ``[start, end)`` of tokens, separators included, in order.
    """
    found = []
    for block in transcript.walk():
        for start, end, separator in _gaps(block, vocabulary) if block.parallel else ():
            between = tuple(transcript.tokens[start:end])
            if between and between != separator:
                found.append((start, end))
    return sorted(found)


def _gaps(block: Block, vocabulary: Vocabulary) -> Iterator[tuple[int, int, tuple[Token, ...]]]:
    """Between the parts of `block`: where, and what an engine writes there."""
    if block.goal_close is not None:
        yield block.goal_close + 1, block.paths[0].start, vocabulary.goal_separator
    for path, following in pairwise([*block.paths, None]):
        if path is None or path.close is None:
            continue
        if following is not None:
            yield path.close + 1, following.start, vocabulary.path_separator
        elif path.end < block.end:
            yield path.close + 1, path.end, vocabulary.last_separator
