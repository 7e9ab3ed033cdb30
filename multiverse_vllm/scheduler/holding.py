"""Which branches run in a step, where a policy decides (`multiverse.serving.admission`); without one nothing of it is.

A branch is held from its second step on, so that its header is computed: in vLLM's list of running requests, with its
KV and its place in the batch. Memory pressure takes no notice: held branches give way in the same order as others.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from vllm.v1.request import RequestStatus

from multiverse.serving.admission.policies import Policy
from multiverse.serving.admission.step import Family, Step
from multiverse_vllm.scheduler.paces import Paces
from multiverse_vllm.scheduler.state import State
from multiverse_vllm.scheduler.tree import Member, RequestTree


class Holding:
    """Holds and releases the branches of one scheduler.

    Attributes:
        paces: how requests are served beside what they were promised; `None` if the policy doesn't ask.
    """

    def __init__(self, state: State, policy: Policy, paces: Paces | None) -> None:
        self._trees, self._queue, self._policy, self.paces = state.trees, state.queue, policy, paces
        self._number = 0

    def before_schedule(self) -> None:
        """Hold branches in the step that is about to be scheduled, and release those that are to run in it."""
        groups = [(tree, members) for tree in self._trees.structured.values() if (members := _able(tree))]
        if not self._trees.guard.aside(self._plan, groups, otherwise=False):
            for _, members in groups:  # a policy that fails holds nobody
                for member in members:
                    self._release(member)

    def _plan(self, groups: list[tuple[RequestTree, list[Member]]]) -> bool:
        self._number += 1
        if all(len(members) == 1 for _, members in groups):
            for _, (member,) in groups:
                self._release(member)
            return True
        step = self._step(groups)
        plan = self._policy.plan(step)
        for i, (_, members) in enumerate(groups):
            for j, member in enumerate(members):
                if plan.runs(i, j):
                    self._release(member)
                elif member.held_since is None:
                    self._queue.hold(member, self._number)
        return True

    def _step(self, groups: list[tuple[RequestTree, list[Member]]]) -> Step:
        paces, now = self.paces, time.monotonic()
        if paces is None:
            return Step(self._number, [Family(self._since(members)) for _, members in groups])
        families = [
            Family(
                self._since(members),
                sum(member.request.num_tokens for member in members),
                paces.slack_of(tree, now),
            )
            for tree, members in groups
        ]
        branches = {member.request.request_id for _, members in groups for member in members}
        return Step(self._number, families, *paces.others(branches, now))

    def _since(self, members: list[Member]) -> list[int]:
        return [self._number if member.held_since is None else member.held_since for member in members]

    def _release(self, member: Member) -> None:
        """Unless a token of its own is under way, which has to be known before it goes on."""
        if member.held_since is not None and not member.request.num_in_flight_tokens:
            self._queue.release(member)


def _able(tree: RequestTree) -> list[Member]:
    """The branches of a tree that sample, in document order."""
    return sorted(filter(_samples, _branches(tree)), key=lambda member: member.strand.key)


def _branches(tree: RequestTree) -> Iterator[Member]:
    return (member for member in tree.members.values() if member.strand.parent is not None)


def _samples(member: Member) -> bool:
    return not member.draining and not member.parked and member.request.status is RequestStatus.RUNNING
