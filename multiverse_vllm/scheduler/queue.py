"""The queues of vLLM's scheduler: nothing else of ours changes them.

A member is `OUT` of them, `QUEUED` in one of them (vLLM itself moves requests from waiting to running, and back when
it preempts them), or `PARKED`, outside with its KV. Who is held is `QUEUED` and running, with its place and its KV, and
vLLM passes over it. `enqueue` and `remove`, `park` and `unpark`, `hold` and `release` are pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.request_queue import SchedulingPolicy, create_request_queue
from vllm.v1.request import RequestStatus

from multiverse_vllm.scheduler.host import Finish, HostScheduler, Request
from multiverse_vllm.scheduler.tree import Member, Place

NEVER = 1 << 62
"""The step in which vLLM may decode a request that is held."""


class Queue:
    """The members of one scheduler in its queues.

    Args:
        host: the scheduler.
        finish: its `finish_requests` as vLLM has it.
    """

    def __init__(self, host: HostScheduler, finish: Finish) -> None:
        self._host, self._finish = host, finish

    def enqueue(self, member: Member) -> None:
        """OUT to QUEUED: let vLLM compute what its request has no KV of. The workers meet it anew."""
        assert member.place is Place.OUT
        assert member.held_since is None
        self._retire(member, Place.QUEUED)
        self._host._enqueue_waiting_request(member.request)

    def remove(self, member: Member) -> None:
        """QUEUED, or PARKED, to OUT: nothing is computed for it, what is under way for it is dropped. Its KV stays."""
        request, host = member.request, self._host
        self.release(member)
        if member.place is Place.QUEUED and request in host.running:
            host.running.remove(request)
        elif member.place is Place.QUEUED:
            host.waiting.remove_requests([request])
            host.kv_holding_waiting.remove_requests([request])
            host.deferred_waiting.discard(request)
        self.drop_in_flight(member)
        request.spec_token_ids = []
        member.place, request.status = Place.OUT, RequestStatus.WAITING

    def park(self, member: Member) -> None:
        """OUT, or QUEUED and running, to PARKED: it waits with its KV, unknown to the workers."""
        assert member.place is not Place.PARKED
        if member.place is Place.QUEUED:
            self._host.running.remove(member.request)
        self.drop_in_flight(member)
        self._retire(member, Place.PARKED)

    def unpark(self, member: Member) -> None:
        """PARKED to OUT: it is about to go on."""
        assert member.place is Place.PARKED
        member.place = Place.OUT

    def hold(self, member: Member, step: int) -> None:
        """Let vLLM pass over a branch that it computes, from `step` on. What is under way for it still counts."""
        assert member.place is Place.QUEUED
        member.request.next_decode_eligible_step = NEVER
        member.note_held(step)

    def release(self, member: Member) -> None:
        """Hold it no longer, if it was."""
        if member.held_since is not None:
            member.request.next_decode_eligible_step = 0
            member.note_released()

    def _retire(self, member: Member, place: Place) -> None:
        member.place, member.request.status = place, RequestStatus.WAITING
        self._host.finished_req_ids.add(member.request.request_id)  # to the workers

    @staticmethod
    def drop_in_flight(member: Member) -> None:
        """Drop what workers may still sample for a request in steps that are under way (async scheduling).

        The KV they write is wanted: steps run in order, so it is there before any later step reads it.
        """
        request = member.request
        request.drop_stale_output = True
        request.num_stale_output_tokens = request.num_in_flight_tokens
        request.num_output_placeholders = 0

    @contextmanager
    def draining(self) -> Iterator[None]:
        """While vLLM plans a step before a pause that waits: what holds KV goes on, what has not begun stays queued.

        Since 0.32 vLLM does that by itself; 0.31 lets neither begin, and branches stand among those that hold KV.
        """
        host = self._host
        assert host._pause_state is PauseState.PAUSED_NEW
        unbegun, host.waiting = host.waiting, create_request_queue(host.policy)
        host._pause_state = PauseState.UNPAUSED
        try:
            yield
        finally:
            host._pause_state = PauseState.PAUSED_NEW
            preempted, host.waiting = list(host.waiting), unbegun
            host.waiting.prepend_requests(reversed(preempted))

    def finish(self, request_ids: Iterable[str], status: object) -> None:
        """End those of the requests that vLLM knows, wherever they are, and free all that they hold."""
        self._finish([name for name in request_ids if name in self._host.requests], status)

    def running(self) -> list[Request]:
        """What vLLM computes in each step; not to be changed."""
        return self._host.running

    def sort_running(self, key: Callable[[Request], tuple[Any, ...]]) -> None:
        """vLLM preempts from the end."""
        self._host.running.sort(key=key)

    def sort_waiting(self) -> None:
        """The queue of those that hold blocks is first come, first served: an old tree must not wait behind others."""
        queue = self._host.kv_holding_waiting
        if len(queue) > 1:
            requests = sorted(queue, key=lambda request: (self.rank(request), request.arrival_time))
            queue.remove_requests(requests)
            for request in requests:
                queue.add_request(request)

    def rank(self, request: Request) -> int:
        """The lower the more important, as `multiverse.serving.pressure` has it."""
        return int(request.priority) if self._host.policy is SchedulingPolicy.PRIORITY else 0
