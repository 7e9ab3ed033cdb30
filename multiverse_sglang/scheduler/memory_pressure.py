"""What happens when KV slots get short: whoever came last gives slots back, whole trees at once, and is computed later.

SGLang can only retract what runs; the slots may be held by parents and branches that wait. The most senior tree is
never touched, so it ends some day, and then the next one is the most senior. What gave its slots back comes before what
is new.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus
from typing import Any

from sglang.srt.managers.schedule_batch import FINISH_ABORT
from sglang.srt.managers.schedule_policy import AddReqResult, PrefillAdder

from multiverse.serving.containment import Guard
from multiverse.serving.pressure import senior_first, seniority, victims
from multiverse.serving.readmission import readmittable
from multiverse_sglang.channels import CONDUCTOR, MEMBER
from multiverse_sglang.scheduler.retained import KeptStates
from multiverse_sglang.scheduler.runs import Runs
from multiverse_sglang.scheduler.tree import Member, RequestTree
from multiverse_sglang.scheduler.waiting_queue import PLAIN, WaitingQueue, seniority_of, tree_of

logger = logging.getLogger("sglang.multiverse")


class ShortageNoter(PrefillAdder):
    """SGLang's rules of who may be computed next; the conductor learns when slots were what was lacking."""

    def add_one_req(self, *args: Any, **kwargs: Any) -> AddReqResult:
        """As SGLang's."""
        result = super().add_one_req(*args, **kwargs)
        if result is AddReqResult.NO_TOKEN:
            getattr(self.tree_cache, CONDUCTOR).is_short = True
        return result


class MemoryPressure:
    """The part of the conductor that decides who has to give slots back.

    Attributes:
        is_short: whether SGLang, when it planned last, found too few slots for somebody who waits.
    """

    scheduler: Any
    pool: Any
    queue: WaitingQueue
    runs: Runs
    guard: Guard[RequestTree]
    trees: dict[str, RequestTree]
    exiles: list[RequestTree]
    retracted: list[RequestTree]
    begin: Callable[[RequestTree, bool], None]
    states: KeptStates
    replay: Callable[[RequestTree], None]
    finish: Callable[[RequestTree, Any], None]
    is_short: bool = False

    def retract(self, run: Any) -> None:
        """SGLang has retracted a run. Its tree is replayed before the next step: others of its runs are in the batch
        that is being made."""
        self.retracted.append(getattr(run, MEMBER).tree)

    def make_room(self) -> None:
        """Before a step: free the slots that it needs, so that SGLang does not retract what it can't recompute."""
        self.is_short = False
        while self.states.kept and (self.exiles or self._lacks_slots(self._running())):
            self.states.drop_oldest()
        retracted, self.retracted = self.retracted, []
        for tree in retracted:
            if self.trees.get(tree.client.rid) is tree and tree not in self.exiles:
                self.guard.run(tree, self.replay, tree, otherwise=None)
        if not self.trees:
            return
        if self.exiles:
            self._readmit()
        self.queue.put_strands_first()
        while self._lacks_slots(running := self._running()):
            victim, plain = self._victim(), [seniority_of(request) for request in running if tree_of(request) is None]
            if victim is not None and (not plain or seniority(victim) > max(plain)):
                self.replay(victim)
            elif plain:
                return  # SGLang retracts the youngest of them
            else:
                self._fail(self._oldest())
                return

    def _lacks_slots(self, running: list[Any]) -> bool:
        return bool(running) and self.pool.free() < self.pool.growth(running)

    def newcomers_held_back(self) -> AbstractContextManager[None]:
        """While trees wait for slots that they gave up, requests that came later don't take them."""
        if not self.exiles:
            return nullcontext()
        first = min(map(seniority, self.exiles))
        requests = self.queue.requests
        later = [request for request in requests if tree_of(request) is None and first < seniority_of(request) < PLAIN]
        return self.queue.without(later)

    def _readmit(self) -> None:
        """Let trees that gave up their slots begin again."""
        oldest = self._oldest()
        promised = self.pool.growth(self._running()) + sum(map(self._missing, oldest.members.values()))
        exiles = senior_first(self.exiles)
        begins = list(readmittable(exiles, oldest, self.pool.free(), promised))
        self.exiles = [tree for tree in exiles if tree not in begins]
        for tree in begins:  # what they found in the radix tree would be locked, and memory is short
            self.guard.run(tree, self.begin, tree, False, otherwise=None)

    def _missing(self, member: Member) -> int:
        """Slots that a member needs before it can go on."""
        runs = member.run is not None and member.run.kv.holds_kv
        return 0 if runs else int(self.pool.missing(member.held, len(member.tokens)))

    def unblock(self, schedule: Callable[[], Any], plan: Any) -> Any:
        """If nothing runs, and nothing can for want of slots, take some from what is kept and from trees.

        That nothing was scheduled for another reason, such as an adapter that is being loaded, is SGLang's affair.
        """
        while self._is_stuck(plan) and self.states.kept:
            self.states.drop_oldest()
            plan = self._again(schedule)
        while self.trees and self._is_stuck(plan):
            oldest = self._oldest()
            others = [request for request in self.queue.requests if tree_of(request) is not oldest]
            with self.queue.without(others):
                for request in self.queue.requests:
                    request.sampling_params.max_new_tokens = min(2, request.sampling_params.max_new_tokens)
                plan = self._again(schedule)
            if not self._is_stuck(plan):
                break
            if victim := self._victim():
                self.replay(victim)
            else:
                self._fail(oldest)
        return plan

    def _again(self, schedule: Callable[[], Any]) -> Any:
        self.is_short = False
        return schedule()

    def _is_stuck(self, plan: Any) -> bool:
        return plan.batch_to_run is None and self.is_short and not self._in_flight(plan)

    def _oldest(self) -> RequestTree:
        return min(self.trees.values(), key=seniority)

    def _victim(self) -> RequestTree | None:
        """The most junior tree that holds anything; never the most senior of all."""
        holding = (tree for tree in victims(self.trees.values()) if any(map(_holds, tree.members.values())))
        return next(holding, None)

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

    def _fail(self, tree: RequestTree) -> None:
        """End a request that needs more memory than there is; the others go on."""
        message = f"The request needs more KV slots than the {self.pool.total} there are."
        logger.error("%s: %s", tree.client.rid, message)
        self.finish(tree, FINISH_ABORT(message, HTTPStatus.INTERNAL_SERVER_ERROR))


def release(run: Any) -> None:
    """SGLang is about to retract a run: it gives back what is its own, also what its strand had brought along."""
    member: Member = getattr(run, MEMBER)
    if member.run is run:
        member.tree.retracted += max(0, min(run.kv.kv_committed_len, run.seqlen) - run.kv.cache_protected_len)
        if member.held is not None:
            member.held.disown()


def _holds(member: Member) -> bool:
    return member.computed > 0 or (member.run is not None and member.run.kv.holds_kv)
