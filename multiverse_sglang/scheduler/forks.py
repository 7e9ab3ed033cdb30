"""Map and reduce: what SGLang computes is brought to what the controller of a tree wants.

By looking at strands, not at actions: those are the journal that events are told from (`RequestTree.publish`). A
strand that forks or closes loses its run; its last tokens have no KV yet and are computed by a run that samples
nothing (draining): a parent's before its branches start, those of branches together once the last of them closed.
"""

from __future__ import annotations

import time

from multiverse.decoding.replay import Part
from multiverse.decoding.strand import Strand
from multiverse.serving.metrics import Tally
from multiverse.serving.reconcile import reconcile
from multiverse_sglang.scheduler.retained import RetainedKV, strand_tokens
from multiverse_sglang.scheduler.runs import Runs
from multiverse_sglang.scheduler.slots import SlotPool
from multiverse_sglang.scheduler.tree import Member, RequestTree


class Forks:
    """Starts and joins the branches of trees.

    Args:
        join: how the dialect joins: `splice`, or by computing the branches again.
    """

    def __init__(self, join: str, pool: SlotPool, runs: Runs, retained: RetainedKV, tally: Tally) -> None:
        self._join_mode = join
        self._pool, self._runs, self._retained, self._tally = pool, runs, retained, tally

    def reconcile(self, tree: RequestTree) -> None:
        """Bring what SGLang computes to what the controller wants: start branches, join closed ones."""
        reconcile(tree.members, self)

    def is_complete(self, parent: Member) -> bool:
        """Whether all KV of an idle strand that forks is there; else a run is queued for the rest."""
        if parent.computed < len(parent.tokens):
            self._drain(parent)
            return False
        return True

    def _drain(self, member: Member) -> None:
        """Compute the last tokens of a strand, and sample nothing."""
        member.drain()
        self._runs.enqueue(member)

    # --- map ---------------------------------------------------------------------------------------------------

    def start(self, parent: Member, strand: Strand) -> None:
        """Make a member of a branch; its KV begins with its parent's."""
        assert parent.slots is not None
        tree = parent.tree
        claimed = self._retained.claim_branch(tree, strand, parent)
        slots = self._pool.share(parent.slots) if claimed is None else claimed
        member = tree.members[strand.key] = Member(tree, strand, tokens=parent.tokens[:], slots=slots)
        member.tokens.extend(member.parts()[0].tokens if claimed is None else strand_tokens(strand))
        member.advance_to(0 if claimed is None else len(member.parts()) - 1)
        tree.note_start(parent, strand, self._tally)
        if member.computed < len(member.tokens):
            self._runs.enqueue(member)

    # --- reduce ------------------------------------------------------------------------------------------------

    def join(self, parent: Member, branches: list[Member], part: Part) -> None:
        """Hand the branches' KV to the parent and let it go on; before, complete it, for all of them at once."""
        tree = parent.tree
        if incomplete := [branch for branch in branches if branch.computed < len(branch.tokens)]:
            for branch in incomplete:
                self._drain(branch)
            return
        assert parent.slots is not None
        shared = parent.slots.length
        slots = [branch.slots for branch in branches if branch.slots is not None]
        assert len(slots) == len(branches)
        if self._join_mode == "splice":
            parent.slots = self._pool.splice(parent.slots, slots)
            self._tally.count("spliced_tokens", parent.slots.length - shared)
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
            self._runs.enqueue(parent)
        else:  # nothing is between this join and the next fork, or the end of a program's prompt
            self.reconcile(tree)
