"""What can be done about policies of admission in the process of SGLang's scheduler: a part of its stepper."""

from __future__ import annotations

import math
from typing import Any

from policies import Erratic

from multiverse.serving.admission.step import Plan, Step


class Failing:
    """Fails after so many steps."""

    step_time = None

    def __init__(self, policy: Any, steps: int) -> None:
        self._policy, self._left = policy, steps

    def plan(self, step: Step) -> Plan:
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("planted")
        plan: Plan = self._policy.plan(step)
        return plan


class Policies:
    """Answers to the test's requests that are about who is held."""

    scheduler: Any

    @property
    def _holding(self) -> Any:
        return self.scheduler.multiverse_conductor._holding

    def on_patience(self) -> None:
        """What can't be held at all is not tried: let it seem as if it could."""
        from multiverse.serving.admission.pace import Pace

        Pace.per_token = math.inf  # type: ignore[assignment, method-assign]

    def on_erratic(self, seed: int) -> None:
        self._holding._policy = Erratic(seed)

    def on_failing(self, steps: int) -> None:
        self._holding._policy = Failing(self._holding._policy, steps)

    def on_held(self) -> list[str]:
        """The runs that are held."""
        return [member.run.rid for member in self.scheduler.multiverse_conductor.trees.held()]

    def on_idle(self) -> tuple[bool, bool]:
        """Whether SGLang takes itself for idle, and whether it does so if waiting requests are no matter."""
        return self.scheduler.is_fully_idle(), self.scheduler.is_fully_idle(ignore_waiting=True)

    def on_drop_held(self) -> None:
        """Forget that branches are held, and release none: what may not happen."""
        for member in self.scheduler.multiverse_conductor.trees.held():
            member.note_released()

    def on_branches(self) -> dict[str, int]:
        """How many branches of each request decode in the step that was last; not those that began with it."""
        batch, found = self.scheduler.last_batch, dict[str, int]()
        for request in () if batch is None or not batch.forward_mode.is_decode() else batch.reqs:
            client, mark, key = request.rid.partition("#")
            if mark and key:
                found[client] = found.get(client, 0) + 1
        return found

    def on_promises(self) -> tuple[int, int, int]:
        """Requests that were promised something and are served; how many were served in time, and how many not."""
        conductor = self.scheduler.multiverse_conductor
        totals = conductor.tally.totals
        return len(conductor.paces._served), totals["slo_met"], totals["slo_missed"]
