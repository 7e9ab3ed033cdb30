"""What operators, SGLang's memory and its checks ask of trees: to give up KV, to know their weights, to balance."""

from __future__ import annotations

from multiverse.serving.integrity import IntegrityCheck
from multiverse_sglang.scheduler.books import problems_at_rest
from multiverse_sglang.scheduler.containment import Containment
from multiverse_sglang.scheduler.metrics import Metrics
from multiverse_sglang.scheduler.tree import RequestTree
from multiverse_sglang.scheduler.weights import note_version


class Upkeep(Containment):
    """The part of the conductor that is about all trees, not about what they say."""

    integrity: IntegrityCheck
    metrics: Metrics | None
    _rests: bool

    # --- KV that is not valid any more -------------------------------------------------------------------------

    def replay(self, tree: RequestTree) -> None:
        """Give up all KV of a tree; it is computed again, exactly, when there is room."""
        root = tree.root
        tree.released_kv = tree.retracted + sum(
            self.runs.release(member) for member in reversed([*tree.members.values()])
        )
        tree.recomputed += tree.released_kv
        tree.members, root.drain_started_at, tree.retracted = {(): root}, None, 0
        self.tally.count("replays")
        self.exiles.append(tree)

    def give_up_kv(self) -> None:
        """SGLang drops its KV, or is about to: every tree gives up its own, and what states of programs keep goes."""
        self.states.drop(None)
        self.retracted.clear()
        for tree in list(self.trees.values()):
            if tree not in self.exiles:
                self.guard.run(tree, self.replay, tree, otherwise=None)
        self.end_failing()

    def before_flush(self) -> bool:
        """SGLang is about to flush its KV cache; it does so while requests wait if it is paused and computes none.

        Returns:
            whether that takes nothing away from anybody.
        """
        if self.scheduler._engine_paused and self.scheduler.is_fully_idle(ignore_waiting=True):
            self.give_up_kv()
        self.states.drop(None)
        return True

    def note_version(self, old_version: str) -> None:
        """The weights have changed."""
        note_version(self.trees.values(), old_version)

    # --- figures -----------------------------------------------------------------------------------------------

    def held_tokens(self) -> int:
        """Slots that strands hold outside of SGLang's batches, for its leak checks."""
        members = [m for tree in self.trees.values() for m in tree.members.values()]
        idle = [m.held for m in members if m.held is not None and (m.run is None or not m.run.kv.holds_kv)]
        return sum(map(self.pool.owned, idle))

    def kept_tokens(self) -> int:
        """Slots that states of programs keep, for the same."""
        return self.states.tokens

    def rest(self) -> None:
        """Nothing is left to be done: nothing may be left over either (I8). Looked at once per rest."""
        if not self._rests:
            self._rests = True
            self.integrity.enter(problems_at_rest(self))
            self.publish()

    def publish(self) -> None:
        """Bring the metrics up to date."""
        if self.metrics is not None:
            self.guard.aside(self.metrics.update, self.tally, self.trees.values(), otherwise=None)
