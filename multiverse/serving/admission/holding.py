"""Which branches run in the step that is about to be scheduled, and which are held, since when. A host does both.

A branch is held from its second step on, so that its header is computed. Memory pressure takes no notice: held branches
give way in the same order as others. So who waits for time is decided here, and who waits for memory there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from multiverse.serving.admission.paces import Paces
from multiverse.serving.admission.policies import Policy
from multiverse.serving.admission.step import Family, Step
from multiverse.serving.request_tree import Member, RequestTree

M = TypeVar("M", bound=Member)


class Holding(Generic[M]):
    """Holds and releases the branches of one scheduler.

    Args:
        policy: plans steps.
        paces: how requests are served beside what they were promised; `None` if the policy doesn't ask.
        aside: calls a function and returns what it returns, or `otherwise` if it raises.
    """

    def __init__(self, policy: Policy, paces: Paces[Any] | None, aside: Callable[..., bool]) -> None:
        self._policy, self.paces, self._aside = policy, paces, aside
        self._number = 0

    # --- what a host says, and does ------------------------------------------------------------------------------

    def decodes(self, member: M) -> bool:
        """Whether a step computes one token of `member`, or would if it were not held."""
        raise NotImplementedError

    def name(self, tree: Any) -> str:
        """That of the client's request, as `paces` knows it."""
        raise NotImplementedError

    def length(self, member: M) -> int:
        """Tokens that its next one attends to."""
        raise NotImplementedError

    def others(self, branches: Sequence[M]) -> Iterable[tuple[str, int]]:
        """Of everybody who decodes beside `branches`: name of the client's request, and length."""
        raise NotImplementedError

    def hold(self, members: Sequence[M], step: int) -> None:
        """Pass over `members`, none of which is held, from `step` on. What is under way for them still counts."""
        raise NotImplementedError

    def release(self, members: Sequence[M]) -> None:
        """Hold `members`, all of which are held, no longer: those of which no token is under way, that has to be known
        before they go on. The others stay held, and are asked for again."""
        raise NotImplementedError

    # --- the plan ------------------------------------------------------------------------------------------------

    def before_step(self, trees: Iterable[RequestTree], now: float) -> None:
        """Hold branches of `trees` in the step that is about to be scheduled, release those that are to run in it.

        Args:
            now: seconds on the clock of `paces`.
        """
        groups = [(tree, members) for tree in trees if (members := self._branches(tree))]
        if not self._aside(self._plan, groups, now, otherwise=False):  # a policy that fails holds nobody
            self._change([member for _, members in groups for member in members], [])

    def _branches(self, tree: Any) -> list[M]:
        """Those that sample, in document order."""
        members: Iterable[M] = tree.members.values()
        branches = (m for m in members if m.strand.parent is not None and not m.draining and self.decodes(m))
        return sorted(branches, key=lambda member: member.strand.key)

    def _plan(self, groups: list[tuple[RequestTree, list[M]]], now: float) -> bool:
        self._number += 1
        if all(len(members) == 1 for _, members in groups):
            self._change([member for _, (member,) in groups], [])
            return True
        plan = self._policy.plan(self._step(groups, now))
        run, wait = list[M](), list[M]()
        for i, (_, members) in enumerate(groups):
            for j, member in enumerate(members):
                (run if plan.runs(i, j) else wait).append(member)
        self._change(run, wait)
        return True

    def _change(self, run: Iterable[M], wait: Iterable[M]) -> None:
        if released := [member for member in run if member.held_since is not None]:
            self.release(released)
        if held := [member for member in wait if member.held_since is None]:
            self.hold(held, self._number)

    def _step(self, groups: list[tuple[RequestTree, list[M]]], now: float) -> Step:
        paces = self.paces
        if paces is None:
            return Step(self._number, [Family(self._since(members)) for _, members in groups])
        families = [
            Family(self._since(members), sum(map(self.length, members)), paces.slack_of(self.name(tree), now))
            for tree, members in groups
        ]
        others = self.others([member for _, members in groups for member in members])
        return Step(self._number, families, *paces.others(others, now))

    def _since(self, members: Iterable[M]) -> list[int]:
        return [self._number if member.held_since is None else member.held_since for member in members]
