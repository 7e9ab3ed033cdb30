"""Attention of drafts that are verified in one step: each row's are a tree behind what the row has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from multiverse.attention.shared_prefix import Pass


def verify(prefixes: Sequence[int], trees: Sequence[Sequence[Sequence[bool]]]) -> list[Pass]:
    """The passes of a step that verifies drafts.

    Args:
        prefixes: slots that each row has already; at least one.
        trees: by row, drafted token and drafted token: whether the one sees the other. A token sees itself and, of
            those before it, the ones that it goes on from. Behind the prefix, slots are in the order of tokens.

    Returns:
        passes of queries that are numbered row after row. Where each token sees all before it that is one of each row,
        as of an extend; else one over the prefix, and those of each token over what it sees of the drafts.
    """
    passes, first = [], 0
    for row, (prefix, tree) in enumerate(zip(prefixes, trees, strict=True)):
        queries = range(first, first + len(tree))
        first += len(tree)
        if all(all(seen[:at]) for at, seen in enumerate(tree)):
            passes.append(Pass(queries, row, 0, prefix + len(tree), causal=True))
            continue
        passes.append(Pass(queries, row, 0, prefix))
        for query, seen in zip(queries, tree, strict=True):
            passes += [Pass((query,), row, prefix + start, prefix + stop) for start, stop in _runs(seen)]
    return passes


def _runs(seen: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Where what is seen begins and ends, run by run."""
    for wanted, run in groupby(range(len(seen)), seen.__getitem__):
        places = list(run)
        if wanted:
            yield places[0], places[-1] + 1
