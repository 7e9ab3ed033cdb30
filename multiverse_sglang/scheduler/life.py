"""The life of a tree: it starts with what its prompt holds, is advanced after steps, and is finished.

All decisions are the core's; branches are started and joined by `forks`, and the client is shown what is new.
"""

from __future__ import annotations

import bisect
from array import array

from sglang.srt.managers.schedule_batch import FINISH_ABORT, FINISH_LENGTH
from sglang.srt.runtime_context import get_serving

from multiverse.decoding.replay import part_offsets
from multiverse_sglang.host import FinishReason, Scheduler
from multiverse_sglang.scheduler.containment import Containment
from multiverse_sglang.scheduler.forks import Forks
from multiverse_sglang.scheduler.outputs import show
from multiverse_sglang.scheduler.prefix_cache import LayoutCache
from multiverse_sglang.scheduler.retained import RetainedKV
from multiverse_sglang.scheduler.runs import Runs
from multiverse_sglang.scheduler.single_pass import SinglePass
from multiverse_sglang.scheduler.slots import SlotPool
from multiverse_sglang.scheduler.tree import RequestTree
from multiverse_sglang.scheduler.weights import show_versions


class Life:
    """Starts, advances and finishes trees.

    Attributes:
        single_pass: decides what of a prompt is computed in one forward.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        pool: SlotPool,
        runs: Runs,
        forks: Forks,
        retained: RetainedKV,
        containment: Containment,
        prefill: str,
    ) -> None:
        self._scheduler, self._pool, self._runs, self._forks = scheduler, pool, runs, forks
        self._retained, self._containment = retained, containment
        self._cache = LayoutCache(scheduler.tree_cache, pool.page_size)
        self.single_pass = SinglePass(scheduler, prefill)

    # --- start -------------------------------------------------------------------------------------------------

    def start(self, tree: RequestTree, use_cache: bool = True) -> None:
        """Queue the root: with all tokens that it has, to be computed in one forward, or, if that can't be, with its
        first part behind what there is of it.

        The root has no run and no KV before. Afterwards it has a run, or had nothing to compute and was advanced. Its
        slots are those that its state left behind, which are claimed, or those that the radix tree has, locked and not
        its own.

        Args:
            use_cache: whether what the radix tree has of its blocks may be locked; not if memory is short.
        """
        root, prompt = tree.root, tree.controller.prompt
        offsets = part_offsets(prompt.strand)
        root.slots = self._retained.claim(tree)
        if root.slots is None and use_cache and (len(offsets) > 1 or tree.program is not None):
            root.slots = self._cache.find(tree)
        if tree.program is None:
            root.prefill = self.single_pass.begin(tree.controller, root.computed)
        if root.prefill is not None:
            part, root.tokens = len(root.parts()) - 1, array("q", root.prefill.ids)
            root.slots = self._pool.empty() if root.slots is None else root.slots
        else:
            part = 0 if root.slots is None else bisect.bisect(offsets, root.computed) - 1
            root.tokens = array("q", [*prompt.ids[: offsets[part]], *root.parts()[part].tokens])
        if root.slots is not None and part == 0 and tree.program is None:
            self._runs.release(root)  # it ends within the first block: SGLang finds it by itself
        root.advance_to(part)
        if root.slots is not None:
            self._use(tree)
        if root.computed == len(root.tokens):
            self.advance(tree)
        else:
            self._runs.enqueue(root)

    def _use(self, tree: RequestTree) -> None:
        """Truncate the root's slots to what its run may begin behind, and count that as found in the cache."""
        root = tree.root
        assert root.slots is not None
        self._pool.truncate(root.slots, len(root.tokens) - (not root.draining))
        tree.client.cached_tokens = max(tree.client.cached_tokens, root.computed)
        tree.tally.count("cached_tokens", root.computed)

    # --- after a step ------------------------------------------------------------------------------------------

    def advance(self, tree: RequestTree) -> None:
        """Start and join what can be, and show the client what is new."""
        if tree.commit:
            self._forks.reconcile(tree)
            if tree.computed:
                self.finish(tree, FINISH_LENGTH(0))
        elif tree.controller.finish_reason is None:
            self._forks.reconcile(tree)
            self.show(tree)
        else:
            self.finish(tree, tree.reason or FINISH_LENGTH(tree.controller.ledger.used))

    def show(self, tree: RequestTree) -> None:
        show_versions(tree, get_serving().weight_version)
        show(self._scheduler, tree)

    # --- the end -----------------------------------------------------------------------------------------------

    def finish(self, tree: RequestTree, reason: FinishReason) -> None:
        """Answer the client for the last time and give back everything: the radix tree, or what is retained for its
        state, takes over what the root has of the sequence, unless it was aborted."""
        tree.abort()  # nothing if it ended by itself
        root = tree.root
        if root.run is not None:
            self._runs.end(root)
        if root.slots is not None and not isinstance(reason, FINISH_ABORT):
            program = tree.program
            if program is not None and (program.shared is not None or not self._cache.suffices(tree, root.slots)):
                self._retained.retain(tree)
            else:
                self._cache.insert(tree, root.slots)
        self._containment.release(tree)
        tree.client.finished_reason = reason
        tree.client.time_stats.set_completion_time()
        self.show(tree)
        tree.ended = True
