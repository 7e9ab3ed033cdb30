"""Reconcile: looking at strands alone, a host starts and joins branches in whatever order it gets to compute them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import trees
from test_replay import KV, expected
from toy import BINDINGS, encode

from multiverse import Controller, Strand
from multiverse.decoding.replay import Part
from multiverse.serving import request_tree
from multiverse.serving.reconcile import reconcile
from multiverse.structure.layout import Separators


@dataclass(eq=False)
class Member(request_tree.Member):
    """A strand on paper: the KV that it has, its own and its parent's; `busy` while some of it is to be computed.

    A branch that started beside its parent's last tokens computes these for itself, too: its `head`.
    """

    kv: KV = field(default_factory=list)
    head: KV = field(default_factory=list)
    shared: int = 0
    busy: bool = True

    @property
    def idle(self) -> bool:
        return not self.busy

    @property
    def forkable(self) -> bool:
        return True

    def missing(self) -> KV:
        """What of its part is to be computed."""
        part, begin = self.parts()[self.part], len(self.kv) + len(self.head)
        return self.head + [(token, index + part.delta) for index, token in enumerate(part.tokens, begin)]


@dataclass
class Paper:
    """A host without memory to speak of: now and then, there is no room for a branch or KV has yet to be completed."""

    rng: random.Random
    controller: Controller
    members: dict[tuple[int, ...], Member] = field(default_factory=dict)
    fresh: bool = False
    """Whether what `is_complete` said last was that the KV is there."""

    def add(self, strand: Strand, kv: KV, head: KV) -> Member:
        member = Member(self, strand, kv=kv[:], head=head, shared=len(kv) + len(head))
        self.members[strand.key] = member
        member.advance_to(0)
        return member

    def disturb(self) -> None:
        """Nobody concludes anything."""

    def compute(self, member: Member) -> None:
        member.kv += member.missing()
        member.head, member.busy = [], False

    def is_complete(self, parent: Member) -> bool:
        assert parent.parts()[parent.part].children
        self.fresh = self.rng.random() < 0.7
        return self.fresh

    def start(self, parent: Member, branch: Strand) -> None:
        assert self.fresh
        assert branch.parent is not None
        assert branch.parent.key == parent.strand.key
        if self.rng.random() < 0.7:
            self.add(branch, parent.kv, parent.missing() if parent.busy else [])

    def join(self, parent: Member, branches: list[Member], part: Part) -> None:
        assert self.fresh
        assert [branch.strand for branch in branches] == list(parent.parts()[parent.part].children)
        assert all(branch.closed for branch in branches)
        assert part is not None
        assert parent.idle
        if self.rng.random() < 0.3:
            return
        for branch in branches:
            assert branch.shared == branches[0].shared == len(branches[0].kv[: branch.shared])
            parent.kv += branch.kv[branch.shared :]
            del self.members[branch.strand.key]
        parent.advance_to(parent.part + 1)
        parent.busy = True


@pytest.mark.parametrize("separators", ["overlap", "advance"])
@given(text=trees(), seed=st.integers(0, 1 << 32))
def test_whatever_the_order_it_ends_with_the_kv_of_the_layout(text: str, seed: int, separators: Separators) -> None:
    controller = Controller(BINDINGS["multiverse"], prompt=encode("ab" + text), separators=separators)
    controller.begin()
    host = Paper(random.Random(seed), controller)
    root = host.add(controller.root, [], [])
    for _ in range(5000):
        if root.idle and root.part == len(root.parts()) - 1:
            break
        busy = [member for member in host.members.values() if member.busy]
        if busy and host.rng.random() < 0.8:
            host.compute(host.rng.choice(busy))
        reconcile(host.members, host)
    assert root.kv == expected(controller, separators)
    assert host.members == {(): root}
