"""Where joined KV goes in a cache of pages, and in what order it then lies. Same on every host.

Attention over past KV is a sum over a set and keys carry their positions, so a joined sequence may hold its tokens in
any order (SEMANTICS section 2). Whole pages of a branch change hands as they are; only the loose tokens of pages that
are partly a branch's own are moved. What a sequence held before a join stays where it was, so that a branch always
begins with its parent's tokens, and the order follows from the tree and the page size alone: that makes a key for a
prefix cache possible. With pages of one token nothing is loose and the order is the document's.

This file knows no page, only indices of tokens in KV sequences; index `i` lies in page `i // size` of its sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from multiverse.decoding.controller import Controller
from multiverse.decoding.replay import parts
from multiverse.decoding.strand import Strand

Span = tuple[int, int, int]
"""Tokens of a branch: its ordinal and the KV indices `[start, end)`."""

Path = tuple[int, ...]
Entry = tuple[int, int, Path]
"""Token id, position, and the branch it lies in: ordinals of join and branch, per level."""


@dataclass(frozen=True)
class Splice:
    """Where the tokens of branches go.

    Attributes:
        adopted: whole pages that are taken over, one span per branch that has any.
        loose: tokens that are moved, in the order of their new places.
        fill: how many of them complete the parent's partly filled page; the others follow the adopted pages.
    """

    adopted: list[Span]
    loose: list[Span]
    fill: int


def plan_splice(length: int, ends: Sequence[int], size: int) -> Splice:
    """Plan to put what branches hold beyond `length` behind the first `length` tokens of their parent.

    Adopted pages need a full one before them. They have it: a branch with a whole page of its own behind the shared
    tokens has filled the last shared page first, with as many loose tokens as the parent's has room for.

    Args:
        length: tokens that the parent holds and every branch begins with.
        ends: tokens that each branch holds in all.
        size: tokens of a page.
    """
    adopted: list[Span] = []
    loose: list[Span] = []
    start = -(-length // size) * size
    for branch, end in enumerate(ends):
        last = end // size * size
        if start < last:
            adopted.append((branch, start, last))
            rest = [(branch, length, start), (branch, last, end)]
        else:
            rest = [(branch, length, end)]
        loose += [span for span in rest if span[1] < span[2]]
    return Splice(adopted, loose, min(start - length, sum(end - begin for _, begin, end in loose)))


@dataclass(frozen=True)
class KVOrder:
    """A strand's tokens in the order of their KV.

    Attributes:
        entries: from the strand's own first token on.
        spans: `[start, end)`, as KV indices, of the strand's own parts; what lies between them was joined.
    """

    entries: list[Entry]
    spans: list[tuple[int, int]]


def kv_order(controller: Controller, strand: Strand, size: int, base: int = 0, path: Path = ()) -> KVOrder:
    """In which order the KV of a strand lies once every part of it and every branch below is computed and joined.

    It depends on the tree and on `size` alone, not on when what was computed: a strand that is computed again, or by
    another host with such pages, lies in the same order. That makes it a key for a prefix cache.

    Args:
        controller: of the request that `strand` belongs to.
        strand: the root, or a branch. If its last part forks, branches of that, which are not joined yet, are left out.
        size: tokens of a page (vLLM: of a block), at least 1.
        base: tokens that come before its first own one in its KV sequence: what it shares with its parent.
        path: the branches that it lies in, as entries name them; empty for the root.

    Returns:
        `entries[i]` is the token at KV index `base + i`; `spans` has one `[start, end)` per part, in KV indices.
    """
    order = KVOrder([], [])
    known = parts(controller, strand)
    for ordinal, part in enumerate(known):
        start = base + len(order.entries)
        order.entries.extend((token, start + i + part.delta, path) for i, token in enumerate(part.tokens))
        length = base + len(order.entries)
        order.spans.append((start, length))
        if ordinal + 1 < len(known):
            branches = [
                kv_order(controller, child, size, length, (*path, ordinal, i)).entries
                for i, child in enumerate(part.children)
            ]
            plan = plan_splice(length, [length + len(entries) for entries in branches], size)
            loose = _entries(branches, plan.loose, length)
            order.entries.extend(loose[: plan.fill] + _entries(branches, plan.adopted, length) + loose[plan.fill :])
    return order


def _entries(branches: Sequence[list[Entry]], spans: Sequence[Span], base: int) -> list[Entry]:
    """What lies in `spans` of branches that begin behind `base` tokens."""
    return [entry for branch, start, end in spans for entry in branches[branch][start - base : end - base]]
