"""Who shares a prefix, by what a host's block tables say: rows that begin with the same pages read the same slots.

No tree has to be asked: rows that were forked from one sequence begin with its pages, in nested blocks level by level,
and so do requests that found the same prompt in a prefix cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from multiverse.attention.shared_prefix import Group


def groups(tables: Sequence[Sequence[int]], page: int) -> list[Group]:
    """All groups of rows, outer ones before inner ones.

    Args:
        tables: the pages of each row that are full, in the order of its tokens; those behind them may follow if no
            other row has them at the same place.
        page: slots of a page.
    """
    return list(_divide(tables, range(len(tables)), 0, page))


def _divide(tables: Sequence[Sequence[int]], rows: Sequence[int], start: int, page: int) -> Iterator[Group]:
    """Those among `rows`, which share their first `start` pages."""
    alike: dict[int, list[int]] = {}
    for row in rows:
        if len(tables[row]) > start:
            alike.setdefault(tables[row][start], []).append(row)
    for first, *others in alike.values():
        if others:
            stop = min(_common(tables[first], tables[row], start) for row in others)
            yield Group((first, *others), stop * page)
            yield from _divide(tables, (first, *others), stop, page)


def _common(one: Sequence[int], other: Sequence[int], start: int) -> int:
    """How many pages two rows share that share the first `start`; halves what is compared, which C does."""
    end = min(len(one), len(other))
    while start < end:
        middle = (start + end + 1) // 2
        if one[start:middle] == other[start:middle]:
            start = middle
        else:
            end = middle - 1
    return start
