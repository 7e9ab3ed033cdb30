"""Which tokens of a finished transcript an engine writes itself (SEMANTICS section 1)."""

from __future__ import annotations

from collections.abc import Iterator

from multiverse.structure.binding import Binding
from multiverse.structure.tree import Token, Transcript


def injected(tree: Transcript, binding: Binding) -> Iterator[tuple[int, tuple[Token, ...]]]:
    """Where an engine writes, and what.

    A branch cannot foresee its label, so a model need not learn these tokens; and where a text differs from them, it
    is not what that engine would decode.

    Yields:
        for every parallel block, in order: the index of the first token and the tokens, of the separator after the
        goal, every path's header and the separator behind it, and of what follows the last path.
    """
    for block in tree.walk():
        if not block.parallel or block.goal_close is None:
            continue
        yield block.goal_close + 1, binding.goal_separator
        for path in block.paths:
            yield path.start, binding.path_header(path.label)
            if path.close is not None:
                yield path.close + 1, binding.separator_after(path is block.paths[-1])
        if block.end > block.paths[-1].end:
            yield block.paths[-1].end, binding.conclusion_header
