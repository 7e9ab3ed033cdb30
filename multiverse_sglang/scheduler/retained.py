"""KV of branches that a program forked, from one request of a branch to the next and on to the join.

With pages of more than one token also that of a state that was just joined, if the radix tree can't hold it.

It belongs to neither a request nor the radix tree, so that a join can hand it on as it is. There is a bound to it: half
of the pool, and what was retained longest ago goes as soon as any request needs its slots. Nothing but time is lost
then, because every request says what its prompt is made of and computes what is not there. How long a state may live is
for the server to say (`frontend.program_states`): all ranks of a tensor-parallel host have to forget it in one step.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from multiverse.decoding.document import to_transcript
from multiverse.decoding.strand import Strand
from multiverse_sglang.scheduler.kv_slots import KVSlots
from multiverse_sglang.scheduler.prefix_cache import sequence_key
from multiverse_sglang.scheduler.slots import SlotPool
from multiverse_sglang.scheduler.tree import Member, RequestTree


def strand_tokens(strand: Strand) -> list[int]:
    """The tokens of a strand and all below it, in document order."""
    return [token for part, start, end in strand.spans() for token in part.tokens[start:end]]


@dataclass(frozen=True)
class RetainedState:
    """The KV of one state.

    Attributes:
        tokens: what was computed, in document order.
        key: the same in the order of KV, and how it was computed (`prefix_cache.py`).
        delta: position delta at its end.
        space: what else KV in the radix tree depends on: adapter, salt and extra key of the request.
        slots: its slots.
    """

    tokens: array[int]
    key: array[int]
    delta: int
    space: tuple[object, ...]
    slots: KVSlots


class RetainedKV:
    """The KV of all states, by key of the state, that retained longest ago first. Owns it from `retain` to `claim`."""

    def __init__(self, pool: SlotPool) -> None:
        self._pool = pool
        self._states: dict[str, RetainedState] = {}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._states)

    def __iter__(self) -> Iterator[tuple[str, KVSlots]]:
        """The key of each state, and its slots."""
        return ((state, retained.slots) for state, retained in self._states.items())

    def owned_slots(self) -> int:
        """Slots that states own, for SGLang's leak checks."""
        return sum(self._pool.owned_slots(retained.slots) for retained in self._states.values())

    def retain(self, tree: RequestTree) -> None:
        """Take over what the root of a request that ended has."""
        root, program = tree.root, tree.program
        assert root.slots is not None
        assert program is not None
        self.drop(program.state)
        length = root.slots.length
        tokens = array("q", to_transcript(tree.controller).ids[:length])
        key = sequence_key(tree.controller, self._pool.page_size)[:length]
        self._states[program.state] = RetainedState(tokens, key, root.delta, _space(tree), root.slots)
        root.slots = None
        while self.owned_slots() > self._pool.total // 2:
            self.drop_oldest()

    def claim(self, tree: RequestTree) -> KVSlots | None:
        """Hand over what the state that makes this request left behind, as far as the prompt is the same."""
        retained = None if tree.program is None else self._states.pop(tree.program.state, None)
        if retained is None:
            return None
        if retained.space != _space(tree):
            self._pool.release(retained.slots)
            return None
        key = sequence_key(tree.controller, self._pool.page_size)
        self._pool.truncate(retained.slots, _common(retained.key, key))
        return retained.slots

    def claim_branch(self, tree: RequestTree, strand: Strand, parent: Member) -> KVSlots | None:
        """Hand over the KV of a branch that `tree` joins, if there is any, as one that began with `parent`'s slots."""
        if tree.program is None or parent.slots is None:
            return None
        start = len(parent.tokens)
        tokens = array("q", [*parent.tokens, *strand_tokens(strand)])
        for state in tree.program.branches:
            found = self._states.get(state)
            if found is None or found.delta != strand.deltas[-1] or found.space != _space(tree):
                continue
            if found.slots.owned_from <= start and found.tokens == tokens:
                return self._pool.adopt(parent.slots, self._states.pop(state).slots)
        return None

    def drop(self, state: str | None) -> None:
        """Forget the state of this key, or all of them."""
        for name in list(self._states) if state is None else [state]:
            if (retained := self._states.pop(name, None)) is not None:
                self._pool.release(retained.slots)

    def drop_oldest(self) -> None:
        """Forget the state that was retained longest ago."""
        self.drop(next(iter(self._states)))


def _space(tree: RequestTree) -> tuple[object, ...]:
    return tree.client.lora_id, tree.client.extra_key, tree.client.cache_salt


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many elements two sequences begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
