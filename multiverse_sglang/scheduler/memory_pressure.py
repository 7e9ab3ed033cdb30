"""What happens when KV slots get short: whoever came last gives slots back, whole trees at once, and is computed later.

SGLang can only retract what runs; the slots may belong to parents and branches that wait. The most senior tree is never
touched, so it ends some day, and then the next one is the most senior. What gave its slots back comes before what is
new.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus

from sglang.srt.managers.schedule_batch import FINISH_ABORT
from sglang.srt.managers.schedule_policy import AddReqResult, PrefillAdder

from multiverse.serving.pressure import seniority
from multiverse_sglang.channels import CONDUCTOR
from multiverse_sglang.host import Plan, Request, Scheduler
from multiverse_sglang.scheduler.batches import Batches
from multiverse_sglang.scheduler.life import Life
from multiverse_sglang.scheduler.preemption import Preemption
from multiverse_sglang.scheduler.retained import RetainedKV
from multiverse_sglang.scheduler.slots import SlotPool
from multiverse_sglang.scheduler.tree import RequestTree
from multiverse_sglang.scheduler.trees import Trees
from multiverse_sglang.scheduler.waiting_queue import PLAIN, WaitingQueue, seniority_of, tree_of

logger = logging.getLogger("sglang.multiverse")


class ShortageNoter(PrefillAdder):
    """SGLang's rules of who may be computed next; the conductor learns when slots were what was lacking.

    What held branches may yet take is kept for them, as for what runs.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        for member in getattr(self.tree_cache, CONDUCTOR).trees.held():
            self.memory_budget.total_offset += self._get_running_request_total_token_offset(member.run)

    def add_one_req(self, *args: object, **kwargs: object) -> AddReqResult:
        """As SGLang's."""
        result = super().add_one_req(*args, **kwargs)
        if result is AddReqResult.NO_TOKEN:
            getattr(self.tree_cache, CONDUCTOR).memory.is_short = True
        return result


class MemoryPressure:
    """Decides who has to give slots back.

    Attributes:
        is_short: whether SGLang, when it planned last, found too few slots for somebody who waits.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        trees: Trees,
        pool: SlotPool,
        queue: WaitingQueue,
        batches: Batches,
        retained: RetainedKV,
        preemption: Preemption,
        life: Life,
    ) -> None:
        self._scheduler, self._trees, self._pool = scheduler, trees, pool
        self._queue, self._batches = queue, batches
        self._retained, self._preemption, self._life = retained, preemption, life
        self.is_short = False

    def make_room(self) -> None:
        """Before a step: free the slots that it needs, so that SGLang does not retract what it can't recompute."""
        self.is_short = False
        while self._retained and (self._trees.preempted or self._lacks_slots(self._batches.decoding())):
            self._retained.drop_oldest()
        self._preemption.preempt_retracted()
        if not self._trees:
            return
        if self._trees.preempted:
            self._preemption.readmit(self._pool.slots_next_step(self._batches.decoding()))
        self._queue.put_strands_first()
        while self._lacks_slots(running := self._batches.decoding()):
            victim = self._trees.victim()
            plain = [seniority_of(request) for request in running if tree_of(request) is None]
            if victim is not None and (not plain or seniority(victim) > max(plain)):
                self._preemption.preempt(victim)
            elif plain:
                return  # SGLang retracts the youngest of them
            else:
                self._fail(self._trees.oldest())
                return

    def let_wait(self, aborted: list[Request]) -> list[Request]:
        """Those of `aborted` for whom there will be slots: SGLang aborts the last of its batch if there are none even
        after it has retracted all others. It does not know of those that trees hold, and give back one day."""
        return [req for req in aborted if req.beam_group is None and (tree_of(req) or self._trees.hold_kv())]

    def _lacks_slots(self, running: list[Request]) -> bool:
        return bool(running) and self._pool.free_slots() < self._pool.slots_next_step(running)

    def defer_new_requests(self) -> AbstractContextManager[None]:
        """While trees wait for slots that they gave up, requests that came later don't take them."""
        if not self._trees.preempted:
            return nullcontext()
        first = min(map(seniority, self._trees.preempted))
        requests = self._queue.requests
        later = [request for request in requests if tree_of(request) is None and first < seniority_of(request) < PLAIN]
        return self._queue.without(later)

    def resolve_stall(self, schedule: Callable[[], Plan], plan: Plan) -> Plan:
        """If nothing runs, and nothing can for want of slots, take some from what is retained and from trees.

        That nothing was scheduled for another reason, such as an adapter that is being loaded, is SGLang's affair.

        Args:
            schedule: lets SGLang plan once more.
            plan: its plan, in which nothing is computed.

        Returns:
            the plan to go by.
        """
        while self._is_stuck(plan) and self._retained:
            self._retained.drop_oldest()
            plan = self._again(schedule)
        while self._trees and self._is_stuck(plan):
            oldest = self._trees.oldest()
            others = [request for request in self._queue.requests if tree_of(request) is not oldest]
            with self._queue.without(others):
                for request in self._queue.requests:
                    request.sampling_params.max_new_tokens = min(2, request.sampling_params.max_new_tokens)
                plan = self._again(schedule)
            if not self._is_stuck(plan):
                break
            if victim := self._trees.victim():
                self._preemption.preempt(victim)
            else:
                self._fail(oldest)
        return plan

    def _again(self, schedule: Callable[[], Plan]) -> Plan:
        self.is_short = False
        return schedule()

    def _is_stuck(self, plan: Plan) -> bool:
        return plan.batch_to_run is None and self.is_short and not self._in_flight(plan)

    def _in_flight(self, plan: Plan) -> bool:
        """Whether something is under way that will change who can be scheduled."""
        results = getattr(self._scheduler, "result_queue", None)
        return bool(results) or not plan.running_batch.is_empty() or self._scheduler.chunked_req is not None

    def _fail(self, tree: RequestTree) -> None:
        """End a request that needs more memory than there is; the others go on."""
        message = f"The request needs more KV slots than the {self._pool.total} there are."
        logger.error("%s: %s", tree.client.rid, message)
        self._life.finish(tree, FINISH_ABORT(message, HTTPStatus.INTERNAL_SERVER_ERROR))
