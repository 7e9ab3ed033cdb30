"""A host on paper that can hold branches: requests, how they fare, and what a step would compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from multiverse.serving.admission import holding, paces
from multiverse.serving.admission.paces import Served
from multiverse.serving.admission.policies import Policy
from multiverse.serving.request_tree import Member

ROOT = SimpleNamespace(key=(), parent=None)
PROMPT = 40


@dataclass(eq=False)
class Tree:
    """One request: its root, and branches that say so many tokens each."""

    name: str
    lengths: Sequence[int]
    members: dict[tuple[int, ...], Member] = field(default_factory=dict)
    said: int = 0

    def __post_init__(self) -> None:
        self.controller = SimpleNamespace(ledger=SimpleNamespace(used=0))
        for key in [(), *((i,) for i in reversed(range(len(self.lengths))))]:
            strand: Any = SimpleNamespace(key=key, parent=ROOT if key else None)
            self.members[key] = Member(self, strand)
        self.left = {(i,): length for i, length in enumerate(self.lengths)}

    def note_held(self, _: tuple[int, ...]) -> None: ...
    def note_released(self, _: tuple[int, ...]) -> None: ...


class Paces(paces.Paces[Tree]):
    def said(self, client: Tree) -> int:
        return client.said

    def gone(self) -> list[str]:
        return [name for name, served in self._served.items() if not served.client.members]

    def is_whole(self, served: Served[Tree]) -> bool:
        return not any(served.client.left.values())


class Holding(holding.Holding[Member]):
    """Of a host on which everything that is not held says a token in each step."""

    def __init__(self, policy: Policy, known: Paces | None, trees: list[Tree]) -> None:
        super().__init__(policy, known, aside)
        self.trees, self.changes = trees, list[tuple[int, str, list[tuple[int, ...]]]]()

    def decodes(self, member: Member) -> bool:
        return member.tree.left.get(member.strand.key, 0) > 0

    def name(self, tree: Tree) -> str:
        return tree.name

    def length(self, member: Member) -> int:
        return PROMPT + int(member.tree.said)

    def others(self, branches: Sequence[Member]) -> Iterator[tuple[str, int]]:
        assert branches
        return ((tree.name, PROMPT + tree.said) for tree in self.trees if not tree.lengths)

    def hold(self, members: Sequence[Member], step: int) -> None:
        for member in members:
            member.note_held(step)
        self.changes.append((step, "hold", [member.strand.key for member in members]))

    def release(self, members: Sequence[Member]) -> None:
        for member in members:
            member.note_released()
        self.changes.append((self._number, "release", [member.strand.key for member in members]))

    def step(self, now: float = 0.0) -> list[tuple[str, tuple[int, ...]]]:
        """Decide, and do a step; who said something in it."""
        self.before_step([tree for tree in self.trees if tree.lengths and tree.members], now)  # type: ignore[misc]
        spoke = []
        for tree in self.trees:
            for key, left in tree.left.items():
                if left and tree.members[key].held_since is None:
                    tree.left[key] -= 1
                    tree.said += 1
                    spoke.append((tree.name, key))
            if tree.lengths and not any(tree.left.values()):
                tree.members = {}
            if not tree.lengths:
                tree.said += 1
            tree.controller.ledger.used = tree.said
        return spoke


def aside(handler: Any, *args: Any, otherwise: Any) -> Any:
    try:
        return handler(*args)
    except ZeroDivisionError:
        return otherwise
