"""Map and reduce: what SGLang computes is brought to what the controller of a tree wants.

A strand that forks or closes loses its run; its last tokens have no KV yet and are computed by a run that samples
nothing (draining): a parent's before its branches start, those of branches together once the last of them closed.
"""

from __future__ import annotations

import time

from multiverse.decoding.replay import Part
from multiverse.decoding.strand import Status, Strand
from multiverse.serving.metrics import Tally
from multiverse_sglang.scheduler.retained import KeptStates, strand_tokens
from multiverse_sglang.scheduler.runs import Runs
from multiverse_sglang.scheduler.slots import SlotPool
from multiverse_sglang.scheduler.tree import Member, RequestTree


class Forks:
    """Starts and joins the branches of trees.

    Args:
        join: how the dialect joins: `splice`, or by computing the branches again.
    """

    def __init__(self, join: str, pool: SlotPool, runs: Runs, states: KeptStates, tally: Tally) -> None:
        self._join_mode = join
        self._pool, self._runs, self._states, self._tally = pool, runs, states, tally

    def reconcile(self, tree: RequestTree) -> None:
        """Bring what SGLang computes to what the controller wants: start branches, join closed ones."""
        for member in list(tree.members.values()):
            if member.run is not None or tree.members.get(member.strand.key) is not member:
                continue
            known = member.parts()
            children = known[member.part].children
            if not children:
                continue  # closed: its parent sees to it
            if member.computed < len(member.tokens):
                member.draining = True
                self._runs.queue(member)
                continue
            for child in children:
                if child.key not in tree.members and child.status is not Status.WAITING:
                    self._start(tree, child, member)
            branches = [tree.members[child.key] for child in children if child.key in tree.members]
            if len(branches) == len(children) and all(branch.closed for branch in branches):
                self._join(member, branches, known[member.part + 1])

    # --- map ---------------------------------------------------------------------------------------------------

    def _start(self, tree: RequestTree, strand: Strand, parent: Member) -> None:
        """Make a member of a branch; its KV begins with its parent's."""
        assert parent.held is not None
        kept = self._states.adopt(tree, strand, parent)
        member = tree.members[strand.key] = Member(
            tree, strand, tokens=parent.tokens[:], held=kept or self._pool.share(parent.held)
        )
        member.tokens.extend(member.parts()[0].tokens if kept is None else strand_tokens(strand))
        member.advance_to(0 if kept is None else len(member.parts()) - 1)
        tree.started_at.setdefault(strand.key, time.monotonic())
        if member.computed < len(member.tokens):
            self._runs.queue(member)
        if strand.key[-1] == 0:
            self._tally.count("forks")
            if parent.drain_started_at is not None:
                self._tally.observe("fork_seconds", time.monotonic() - parent.drain_started_at)

    # --- reduce ------------------------------------------------------------------------------------------------

    def _join(self, parent: Member, branches: list[Member], part: Part) -> None:
        """Hand the branches' KV to the parent and let it go on; before, complete it, for all of them at once."""
        tree = parent.tree
        if incomplete := [branch for branch in branches if branch.computed < len(branch.tokens)]:
            for branch in incomplete:
                branch.draining = True
                self._runs.queue(branch)
            return
        assert parent.held is not None
        shared = len(parent.held.slots)
        held = [branch.held for branch in branches if branch.held is not None]
        if self._join_mode == "splice":
            parent.held = self._pool.splice(parent.held, held)
            self._tally.count("spliced_tokens", len(parent.held.slots) - shared)
        for branch in branches:
            parent.tokens.extend(branch.tokens[shared:])
            if self._join_mode != "splice":
                self._runs.release(branch)
            tree.members.pop(branch.strand.key)
            tree.closed_at[branch.strand.key] = time.monotonic()
        parent.tokens.extend(part.tokens)
        parent.advance_to(parent.part + 1)
        self._tally.count("joins")
        if closed := [branch.drain_started_at for branch in branches if branch.drain_started_at is not None]:
            self._tally.observe("join_seconds", time.monotonic() - max(closed))
        if parent.computed < len(parent.tokens):
            self._runs.queue(parent)
        else:  # nothing is between this join and the next fork, or the end of a program's prompt
            self.reconcile(tree)
