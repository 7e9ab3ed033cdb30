"""Trees that give up all their KV, and how they come back: computed again, exactly, when there is room."""

from __future__ import annotations

from multiverse.serving.readmission import readmittable
from multiverse_sglang.host import Request
from multiverse_sglang.scheduler.containment import Containment
from multiverse_sglang.scheduler.life import Life
from multiverse_sglang.scheduler.runs import Runs
from multiverse_sglang.scheduler.slots import SlotPool
from multiverse_sglang.scheduler.tree import Member, RequestTree, member_with
from multiverse_sglang.scheduler.trees import Trees


class Preemption:
    """Preempts and readmits trees, whole ones only."""

    def __init__(self, trees: Trees, pool: SlotPool, runs: Runs, life: Life, containment: Containment) -> None:
        self._trees, self._pool, self._runs, self._life = trees, pool, runs, life
        self._containment = containment

    def preempt(self, tree: RequestTree) -> None:
        """Release all KV of a tree; it waits until as much is free."""
        assert tree not in self._trees.preempted
        root = tree.root
        owned_tokens = sum(self._runs.release(member) for member in reversed([*tree.members.values()]))
        tree.released_kv = tree.retracted_tokens + owned_tokens
        tree.recomputed += tree.released_kv
        tree.members, root.drain_started_at, tree.retracted_tokens = {(): root}, None, 0
        tree.disturb()
        tree.tally.count("replays")
        self._trees.preempted.append(tree)

    def preempt_all(self) -> None:
        """SGLang drops its KV, or is about to: every tree gives up its own."""
        self._trees.retracted.clear()
        for tree in self._trees:
            if tree not in self._trees.preempted:
                self._containment.guard.run(tree, self.preempt, tree, otherwise=None)
        self._containment.end_failing()

    def note_retracted(self, run: Request) -> None:
        """SGLang has retracted a run. Its tree is preempted before the next step: others of its runs are in the batch
        that is being made."""
        self._trees.retracted.append(member_with(run).tree)

    def preempt_retracted(self) -> None:
        """Preempt the trees that SGLang has retracted runs of."""
        retracted, self._trees.retracted = self._trees.retracted, []
        for tree in retracted:
            if self._trees.is_alive(tree) and tree not in self._trees.preempted:
                self._containment.guard.run(tree, self.preempt, tree, otherwise=None)

    def readmit(self, promised_slots: int) -> None:
        """Start the trees that may come back now.

        Args:
            promised_slots: those that requests that run are about to take.
        """
        oldest, waiting = self._trees.oldest(), self._trees.waiting()
        promised = promised_slots + sum(map(self._slots_missing, oldest.members.values()))
        back = list(readmittable(waiting, oldest, self._pool.free_slots(), promised))
        self._trees.preempted = [tree for tree in waiting if tree not in back]
        for tree in back:  # what they found in the radix tree would be locked, and memory is short
            self._containment.guard.run(tree, self._life.start, tree, False, otherwise=None)

    def _slots_missing(self, member: Member) -> int:
        """Slots that a member needs before it can go on."""
        runs = member.run is not None and member.run.kv.holds_kv
        return 0 if runs else self._pool.slots_missing(member.slots, len(member.tokens))


def release_retracted(run: Request) -> None:
    """SGLang is about to retract a run: it gives back what is its own, also what its strand had brought along."""
    member = member_with(run)
    if member.run is run:
        computed = max(0, min(run.kv.kv_committed_len, run.seqlen) - run.kv.cache_protected_len)
        member.tree.retracted_tokens += computed
        if member.slots is not None:
            member.slots.drop_owned()
