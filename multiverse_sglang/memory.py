"""What happens when KV slots get short: whoever came last gives slots back, whole trees at once, and is computed later.

SGLang can only retract what runs; the slots may be held by parents and branches that wait. The oldest tree is never
touched, so it ends some day, and then the next one is the oldest. What gave its slots back comes before what is new.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from sglang.srt.managers.schedule_batch import FINISH_ABORT

from multiverse.exile import returning
from multiverse_sglang.kept import KeptStates
from multiverse_sglang.runs import ATTRIBUTE
from multiverse_sglang.tree import Member, RequestTree

NO_AGE = 1 << 62
logger = logging.getLogger("sglang.multiverse")


class MemoryPressure:
    """The part of the conductor that decides who has to give slots back."""

    scheduler: Any
    pool: Any
    trees: dict[str, RequestTree]
    exiles: list[RequestTree]
    retracted: list[RequestTree]
    begin: Callable[[RequestTree, bool], None]
    states: KeptStates
    replay: Callable[[RequestTree], None]
    finish: Callable[[RequestTree, Any], None]

    def retract(self, run: Any) -> None:
        """SGLang has retracted a run and given back what was its own, also what its strand had brought along.

        Its tree is replayed before the next step: others of its runs are in the batch that is being made.
        """
        member: Member = getattr(run, ATTRIBUTE)
        if member.run is run and member.held is not None:
            member.held.disown()
        self.retracted.append(member.tree)

    def make_room(self) -> None:
        """Before a step: free the slots that it needs, so that SGLang does not retract what it can't recompute."""
        while self.states.kept and (self.exiles or self.pool.free() < len(self._running())):
            self.states.drop_oldest()
        retracted, self.retracted = self.retracted, []
        for tree in retracted:
            if self.trees.get(tree.client.rid) is tree and tree not in self.exiles:
                self.replay(tree)
        if not self.trees:
            return
        if self.exiles:
            self._readmit()
        self._order_queue()
        while (running := self._running()) and self.pool.free() < self.pool.growth(running):
            victim, plain = self._youngest(), [_age(request) for request in running if tree_of(request) is None]
            if victim is not None and victim.age > max(plain, default=-1):
                self.replay(victim)
            elif plain:
                return  # SGLang retracts the youngest of them
            elif victim is not None:
                self.replay(victim)
            else:
                self._fail(self._oldest())
                return

    @contextmanager
    def newcomers_held_back(self) -> Iterator[None]:
        """While trees wait for slots that they gave up, requests that came later don't take them."""
        first = min((tree.age for tree in self.exiles), default=None)
        if first is None:
            yield
            return
        queue = self.scheduler.waiting_queue
        later = [request for request in queue if tree_of(request) is None and first < _age(request) < NO_AGE]
        self.scheduler.waiting_queue = [request for request in queue if request not in later]
        try:
            yield
        finally:
            self.scheduler.waiting_queue = [*self.scheduler.waiting_queue, *later]

    def _readmit(self) -> None:
        """Let trees that gave up their slots begin again."""
        oldest = self._oldest()
        promised = self.pool.growth(self._running()) + sum(map(self._missing, oldest.members.values()))
        exiles = sorted(self.exiles, key=lambda tree: tree.age)
        begins = list(returning(exiles, oldest, self.pool.free(), promised))
        self.exiles = [tree for tree in exiles if tree not in begins]
        for tree in begins:
            self.begin(tree, False)  # what it found in the radix tree would be locked, and memory is short

    def _missing(self, member: Member) -> int:
        """Slots that a member needs before it can go on."""
        runs = member.run is not None and member.run.kv.holds_kv
        return 0 if runs else int(self.pool.missing(member.held, len(member.tokens)))

    def unblock(self, schedule: Callable[[], Any], plan: Any) -> Any:
        """If nothing runs and nothing could be scheduled, whoever waits needs what trees hold: take it from them."""
        while plan.batch_to_run is None and self.states.kept and self.scheduler.waiting_queue:
            if self._in_flight(plan):
                return plan
            self.states.drop_oldest()
            plan = schedule()
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
        """The requests that will decode in the next step."""
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


def _age(request: Any) -> int:
    """Order of arrival of what `request` belongs to; `NO_AGE` if it can't have blocks."""
    member: Member | None = getattr(request, ATTRIBUTE, None)
    return NO_AGE if member is None else member.tree.age


def by_age(requests: Sequence[Any], order: list[int]) -> list[int]:
    """Whom SGLang shall keep first when it retracts: the oldest; its own order if no tree is among them."""
    if all(tree_of(request) is None for request in requests):
        return order
    return sorted(order, key=lambda index: _age(requests[index]))


def _holds(member: Member) -> bool:
    return member.computed > 0 or (member.run is not None and member.run.kv.holds_kv)
