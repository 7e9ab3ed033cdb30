"""How branches are held in SGLang (`multiverse.serving.admission.holding`); without a policy nothing of it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from multiverse.serving.admission import holding
from multiverse.serving.admission.policies import Policy
from multiverse.serving.containment import Guard
from multiverse_sglang.host import Request
from multiverse_sglang.scheduler.batches import Batches
from multiverse_sglang.scheduler.paces import Paces
from multiverse_sglang.scheduler.tree import Member, RequestTree, member_of
from multiverse_sglang.scheduler.trees import Trees


class Holding(holding.Holding[Member]):
    """Holds and releases the branches of one scheduler."""

    paces: Paces | None

    def __init__(self, policy: Policy, paces: Paces | None, trees: Trees, batches: Batches, guard: Guard[Any]) -> None:
        super().__init__(policy, paces, guard.aside)
        self._trees, self._batches = trees, batches
        self._decoding: dict[int, Request] = {}

    def before_schedule(self) -> None:
        """SGLang is about to plan its next step."""
        if self._trees:
            self._decoding = {id(request): request for request in self._batches.decoding()}
            self.before_step(self._trees, 0.0 if self.paces is None else self.paces.now)

    def decodes(self, member: Member) -> bool:
        return member.held_since is not None or id(member.run) in self._decoding

    def name(self, tree: RequestTree) -> str:
        return tree.client.rid

    def length(self, member: Member) -> int:
        assert member.run is not None
        return member.run.seqlen

    def others(self, branches: Sequence[Member]) -> Iterator[tuple[str, int]]:
        runs = {id(member.run) for member in branches}
        for request in self._decoding.values():
            if id(request) not in runs:
                member = member_of(request)
                yield request.rid if member is None else member.tree.client.rid, request.seqlen

    def hold(self, members: Sequence[Member], step: int) -> None:
        self._batches.hold(members, step)

    def release(self, members: Sequence[Member]) -> None:
        self._batches.release(members)
