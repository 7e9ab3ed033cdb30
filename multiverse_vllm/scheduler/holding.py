"""How branches are held in vLLM (`multiverse.serving.admission.holding`); without a policy nothing of it is.

A branch that is held stays in vLLM's list of running requests, with its KV and its place in the batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from vllm.v1.request import RequestStatus

from multiverse.serving.admission import holding
from multiverse.serving.admission.policies import Policy
from multiverse_vllm.scheduler.paces import Paces
from multiverse_vllm.scheduler.state import State
from multiverse_vllm.scheduler.tree import Member, RequestTree


class Holding(holding.Holding[Member]):
    """Holds and releases the branches of one scheduler."""

    def __init__(self, state: State, policy: Policy, paces: Paces | None) -> None:
        super().__init__(policy, paces, state.trees.guard.aside)
        self._host, self._trees, self._queue = state.host, state.trees, state.queue

    def before_schedule(self) -> None:
        """vLLM is about to schedule a step."""
        self.before_step(self._trees.structured.values(), time.monotonic())

    def decodes(self, member: Member) -> bool:
        return not member.parked and member.request.status is RequestStatus.RUNNING

    def name(self, tree: RequestTree) -> str:
        return tree.root.request.request_id

    def length(self, member: Member) -> int:
        return member.request.num_tokens

    def others(self, branches: Sequence[Member]) -> Iterator[tuple[str, int]]:
        names = {member.request.request_id for member in branches}
        return ((r.request_id, r.num_tokens) for r in self._host.running if r.request_id not in names)

    def hold(self, members: Sequence[Member], step: int) -> None:
        for member in members:
            self._queue.hold(member, step)

    def release(self, members: Sequence[Member]) -> None:
        for member in members:
            if not member.request.num_in_flight_tokens:
                self._queue.release(member)
