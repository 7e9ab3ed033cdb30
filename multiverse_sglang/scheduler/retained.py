"""KV of branches that a program forked, from one request of a branch to the next and on to the join.

With pages of more than one token also that of a state that was just joined, if the radix tree can't hold it.

It belongs to neither a request nor the radix tree, so that a join can hand it on as it is. There is a bound to it: half
of the pool, and what was kept longest ago goes as soon as any request needs its slots. Nothing but time is lost then,
because every request says what its prompt is made of and computes what is not there. How long a state may live is for
the server to say (`states.py`): all ranks of a tensor-parallel host have to forget it in the same step.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from multiverse.decoding.document import to_transcript
from multiverse.decoding.strand import Strand
from multiverse_sglang.channels import PROGRAM
from multiverse_sglang.scheduler.prefix_cache import sequence_key
from multiverse_sglang.scheduler.slots import SlotPool
from multiverse_sglang.scheduler.tree import Held, Member, Program, RequestTree


def program_of(request: Any) -> Program | None:
    """What the server says about a request, if it belongs to a state of a program."""
    given = request.sampling_params.custom_params
    found = given.get(PROGRAM) if isinstance(given, dict) else None
    if found is None:
        return None
    if found["shared"] is not None:
        request.skip_radix_cache_insert = True  # a branch keeps its KV for the join
    return Program(found["state"], found["spans"], found["shared"], tuple(found["branches"]))


def strand_tokens(strand: Strand) -> list[int]:
    """The tokens of a strand and all below it, in document order."""
    return [token for part, start, end in strand.spans() for token in part.tokens[start:end]]


@dataclass(frozen=True)
class Kept:
    """The KV of one state.

    Attributes:
        tokens: what was computed, in document order.
        key: the same in the order of KV, and how it was computed (`prefix_cache.py`).
        delta: position delta at its end.
        space: what else KV in the radix tree depends on: adapter, salt and extra key of the request.
        held: its slots.
    """

    tokens: array[int]
    key: array[int]
    delta: int
    space: tuple[Any, ...]
    held: Held


class KeptStates:
    """The KV of all states, that kept longest ago first.

    Attributes:
        kept: by key of the state.
    """

    def __init__(self, pool: SlotPool) -> None:
        self._pool = pool
        self.kept: dict[str, Kept] = {}

    @property
    def tokens(self) -> int:
        """Slots that states own, for SGLang's leak checks."""
        return sum(self._pool.owned(kept.held) for kept in self.kept.values())

    def keep(self, tree: RequestTree) -> None:
        """Take over what the root of a request that ended holds."""
        root, program = tree.root, tree.program
        assert root.held is not None
        assert program is not None
        self.drop(program.state)
        length = len(root.held.slots)
        tokens = array("q", to_transcript(tree.controller).ids[:length])
        key = sequence_key(tree.controller, self._pool.page)[:length]
        self.kept[program.state] = Kept(tokens, key, root.delta, _space(tree), root.held)
        root.held = None
        while self.tokens > self._pool.total // 2:
            self.drop_oldest()

    def take(self, tree: RequestTree) -> Held | None:
        """What the state that makes this request left behind, as far as the prompt is the same."""
        kept = None if tree.program is None else self.kept.pop(tree.program.state, None)
        if kept is None:
            return None
        if kept.space != _space(tree):
            self._pool.release(kept.held)
            return None
        self._pool.cut(kept.held, _common(kept.key, sequence_key(tree.controller, self._pool.page)))
        return kept.held

    def adopt(self, tree: RequestTree, strand: Strand, parent: Member) -> Held | None:
        """The KV of a branch that `tree` joins, if it was kept, as one that begins with the slots of `parent`."""
        if tree.program is None or parent.held is None:
            return None
        start = len(parent.tokens)
        tokens = array("q", [*parent.tokens, *strand_tokens(strand)])
        for state in tree.program.branches:
            kept = self.kept.get(state)
            if kept is None or kept.held.own > start or kept.delta != strand.deltas[-1] or kept.space != _space(tree):
                continue
            if kept.tokens == tokens:
                return self._pool.adopt(parent.held, self.kept.pop(state).held)
        return None

    def drop(self, state: str | None) -> None:
        """Forget the state of this key, or all of them."""
        for name in list(self.kept) if state is None else [state]:
            if (kept := self.kept.pop(name, None)) is not None:
                self._pool.release(kept.held)

    def drop_oldest(self) -> None:
        """Forget the state that was kept longest ago."""
        self.drop(next(iter(self.kept)))


def _space(tree: RequestTree) -> tuple[Any, ...]:
    return tree.client.lora_id, tree.client.extra_key, tree.client.cache_salt


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many elements two sequences begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
