"""From a mix of requests that fails to a smallest one that still does. Knows no server: `fails` tries a mix."""

from __future__ import annotations

from collections.abc import Callable, Collection


def shrink(numbers: Collection[int], fails: Callable[[frozenset[int]], bool], tries: int) -> frozenset[int]:
    """Leave out ever smaller parts as long as what remains fails (delta debugging, Zeller and Hildebrandt 2002).

    Args:
        numbers: of the requests of a mix that failed.
        fails: whether a part of it fails, too; a fault that depends on time may hide now and then, so what is returned
            is a part that was seen to fail.
        tries: how often it may be asked.
    """
    found, parts = sorted(numbers), 2
    while len(found) > 1 and tries > 0:
        size = -(-len(found) // parts)
        pieces = [found[i : i + size] for i in range(0, len(found), size)]
        rests = [[number for number in found if number not in piece] for piece in pieces] if parts > 2 else []
        for part in (*pieces, *rests):
            if tries == 0:
                break
            tries -= 1
            if fails(frozenset(part)):
                found, parts = part, max(2, parts - 1 if part in rests else 2)
                break
        else:
            if parts >= len(found):
                break
            parts = min(len(found), 2 * parts)
    return frozenset(found)
