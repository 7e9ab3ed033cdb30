"""What a plan and a refill say together: which sentences stand where, and what a block's paths can see.

A `Site` is one block in its place. Sites are numbered in document order, outer before inner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from multiverse.curator.artefacts import Fork, Item, Plan, Refill


@dataclass(frozen=True)
class Site:
    """One block.

    Attributes:
        index: its place among all blocks, outer before inner.
        depth: 1 for an outer block.
        prefix: what its labels begin with: empty, or `2.` inside path 2.
        before: numbers of the sentences that all its paths see, in order.
        paths: per path the numbers of its sentences, those of inner blocks included.
        items: per path what it is made of.
    """

    index: int
    depth: int
    prefix: str
    before: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]
    items: tuple[tuple[Item, ...], ...]

    def label(self, path: int) -> str:
        """The label of path `path`, counted from 0."""
        return f"{self.prefix}{path + 1}"

    @property
    def steps(self) -> list[str]:
        """The labels of all steps in its paths."""
        return [label for path in self.items for label in labels(path)]


def labels(items: Sequence[Item]) -> list[str]:
    """All labels in document order."""
    return [
        label
        for item in items
        for label in ([item] if isinstance(item, str) else [name for path in item.parallel for name in labels(path)])
    ]


def depth(items: Sequence[Item]) -> int:
    """How deep blocks nest; 0 without any."""
    forks = [item for item in items if isinstance(item, Fork)]
    return max((1 + max(depth(path) for path in fork.parallel) for fork in forks), default=0)


def forks(items: Sequence[Item]) -> Iterator[Fork]:
    """Every block, outer before inner, in document order."""
    for item in items:
        if isinstance(item, Fork):
            yield item
            for path in item.parallel:
                yield from forks(path)


def order(items: Sequence[Item], refill: Refill) -> tuple[int, ...]:
    """The numbers of the sentences in document order."""
    return tuple(number for label in labels(items) for number in refill.sentences.get(label, ()))


def sites(plan: Plan, refill: Refill) -> list[Site]:
    """Every block of `plan` in its place."""
    found: list[Site] = []
    _visit(plan.plan, refill, (), "", 1, found)
    return found


def _visit(
    items: Sequence[Item], refill: Refill, before: tuple[int, ...], prefix: str, level: int, found: list[Site]
) -> None:
    for item in items:
        if isinstance(item, Fork):
            paths = tuple(order(path, refill) for path in item.parallel)
            site = Site(len(found), level, prefix, before, paths, tuple(tuple(path) for path in item.parallel))
            found.append(site)
            for number, path in enumerate(item.parallel):
                _visit(path, refill, before, f"{site.label(number)}.", level + 1, found)
        before += order([item], refill)
