"""What happens when KV slots get short: whole trees give theirs back and are replayed later, youngest first.

SGLang can only retract what runs; the slots may be held by parents and branches that wait. The oldest tree is never
touched, so it ends some day, and then the next one is the oldest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from sglang.srt.managers.schedule_batch import FINISH_ABORT

from multiverse.exile import returning
from multiverse_sglang.runs import ATTRIBUTE
from multiverse_sglang.tree import Member, RequestTree

logger = logging.getLogger("sglang.multiverse")


class MemoryPressure:
    """The part of the conductor that decides who has to give slots back."""

    scheduler: Any
    pool: Any
    trees: dict[str, RequestTree]
    exiles: list[RequestTree]
    begin: Callable[[RequestTree, bool], None]
    replay: Callable[[RequestTree], None]
    finish: Callable[[RequestTree, Any], None]

    def make_room(self) -> None:
        """Before a step: free the slots that it needs, so that SGLang does not retract what it can't recompute."""
        if not self.trees:
            return
        if self.exiles:
            self._readmit()
        self._order_queue()
        while (running := self._running()) and self.pool.free() < len(running):
            if victim := self._youngest():
                self.replay(victim)
            elif all(tree_of(request) is self._oldest() for request in running):
                self._fail(self._oldest())
                return
            else:
                return  # SGLang retracts the plain ones

    def _readmit(self) -> None:
        """Let trees that gave up their slots begin again."""
        oldest = self._oldest()
        promised = len(self._running()) + sum(_missing(member) for member in oldest.members.values())
        exiles = sorted(self.exiles, key=lambda tree: tree.age)
        begins = list(returning(exiles, oldest, self.pool.free(), promised))
        self.exiles = [tree for tree in exiles if tree not in begins]
        for tree in begins:
            self.begin(tree, False)  # what it found in the radix tree would be locked, and memory is short

    def unblock(self, schedule: Callable[[], Any], plan: Any) -> Any:
        """If nothing runs and nothing could be scheduled, whoever waits needs what trees hold: take it from them."""
        while plan.batch_to_run is None and self.trees and not self._in_flight(plan):
            oldest, queue = self._oldest(), self.scheduler.waiting_queue
            own = [request for request in queue if tree_of(request) is oldest]
            others = [request for request in queue if tree_of(request) is not oldest]
            for request in own:
                request.sampling_params.max_new_tokens = min(2, request.sampling_params.max_new_tokens)
            self.scheduler.waiting_queue = own
            plan = schedule()
            self.scheduler.waiting_queue = [*self.scheduler.waiting_queue, *others]
            if plan.batch_to_run is not None:
                break
            if victim := self._youngest():
                self.replay(victim)
            else:
                self._fail(oldest)
        return plan

    def _oldest(self) -> RequestTree:
        return min(self.trees.values(), key=lambda tree: tree.age)

    def _youngest(self) -> RequestTree | None:
        """The youngest tree that holds anything; never the oldest of all."""
        oldest = self._oldest()
        holding = [
            tree for tree in self.trees.values() if tree is not oldest and any(map(_holds, tree.members.values()))
        ]
        return max(holding, key=lambda tree: tree.age, default=None)

    def _running(self) -> list[Any]:
        """The requests that will decode in the next step, one slot each."""
        batches = [self.scheduler.running_batch]
        last = self.scheduler.last_batch
        if last is not None and last is not batches[0] and last.forward_mode.is_extend():
            batches.append(last)
        chunked = self.scheduler.chunked_req
        return [r for batch in batches for r in batch.reqs if not r.finished() and r is not chunked]

    def _in_flight(self, plan: Any) -> bool:
        """Whether something is under way that will change who can be scheduled."""
        results = getattr(self.scheduler, "result_queue", None)
        return bool(results) or not plan.running_batch.is_empty() or self.scheduler.chunked_req is not None

    def _order_queue(self) -> None:
        """Strands hold slots: they go before requests that hold none, those of older trees first."""

        def rank(request: Any) -> tuple[float, bool]:
            tree = tree_of(request)
            return (float("inf"), True) if tree is None else (tree.age, False)

        self.scheduler.waiting_queue.sort(key=rank)

    def _fail(self, tree: RequestTree) -> None:
        """End a request that needs more memory than there is; the others go on."""
        message = f"The request needs more KV slots than the {self.pool.total} there are."
        logger.error("%s: %s", tree.client.rid, message)
        self.finish(tree, FINISH_ABORT(message, HTTPStatus.INTERNAL_SERVER_ERROR))


def tree_of(request: Any) -> RequestTree | None:
    """The tree that `request` computes a strand of, if any."""
    member: Member | None = getattr(request, ATTRIBUTE, None)
    return member.tree if member is not None and member.tree.open else None


def _missing(member: Member) -> int:
    """Slots that a member needs before it can go on."""
    return 0 if member.run is not None and member.run.kv.holds_kv else len(member.tokens) - member.computed


def _holds(member: Member) -> bool:
    return member.held is not None or (member.run is not None and member.run.kv.holds_kv)
