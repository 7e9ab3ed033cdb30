"""How the requests of one scheduler are served beside what they were promised, and how long its steps take."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.request import RequestStatus

from multiverse.serving.admission.pace import Pace
from multiverse.serving.admission.promises import promised
from multiverse.serving.admission.step_time import StepTime
from multiverse.serving.options import Options
from multiverse_vllm.sampling import request_options
from multiverse_vllm.scheduler.host import Request
from multiverse_vllm.scheduler.state import State
from multiverse_vllm.scheduler.tree import RequestTree

_SERVED = (RequestStatus.FINISHED_STOPPED, RequestStatus.FINISHED_LENGTH_CAPPED)
_EVERY = 16
"""Of steps without branches, which need no plan, so many pass for one that is learned from."""


@dataclass(eq=False)
class _Served:
    """A client's request; `tree` from its first fork on."""

    request: Request
    pace: Pace
    tree: RequestTree | None = None

    def tokens(self) -> int:
        """Of its answer so far, over all branches."""
        return self.request.num_output_tokens if self.tree is None else self.tree.controller.ledger.used


class Paces:
    """The clock of the policies that ask for one.

    Args:
        step_time: learns from every step.
    """

    def __init__(self, state: State, options: Options, step_time: StepTime) -> None:
        self._host, self._trees, self._tally = state.host, state.trees, state.tally
        self._options, self._step_time = options, step_time
        self._served: dict[str, _Served] = {}
        self._silent: set[str] = set()
        self._since: float | None = None
        self._steps = 0

    def admit(self, request: Request) -> None:
        """A client's request was added."""
        sampling = request.sampling_params
        if sampling is None or request.resumable or self._host.requests.get(request.request_id) is not request:
            return
        options = request_options(self._options, sampling)
        slo = promised(options.slo, options.tpot_slo_ms, options.ttft_slo_ms)
        if slo:
            pace = Pace(slo, time.monotonic(), max(1, request.max_tokens))
            self._served[request.request_id] = _Served(request, pace)
            self._silent.add(request.request_id)

    def slack_of(self, tree: RequestTree, now: float) -> float:
        """Seconds until a request that has branches open is late."""
        served = self._served.get(tree.root.request.request_id)
        return math.inf if served is None else served.pace.slack(served.tokens(), now)

    def others(self, branches: set[str], now: float) -> tuple[int, int, float, float]:
        """Tokens that all but `branches` compute and attend to; of the requests among them the least slack, and pace.

        Those in vLLM's waiting queues are not: they wait for a place or for KV, which branches that are held keep.
        """
        width, read, slack, pace = 0, 0, math.inf, math.inf
        for request in self._host.running:
            name = request.request_id
            if name not in branches:
                width, read = width + 1, read + request.num_tokens
                served = self._served.get(name)
                if served is not None:
                    slack = min(slack, served.pace.slack(served.tokens(), now))
                    pace = min(pace, served.pace.per_token)
        if slack < math.inf:
            self._tally.observe("slack_seconds", slack)
        return width, read, slack, pace

    # --- steps -------------------------------------------------------------------------------------------------

    def before_step(self) -> None:
        """A step is scheduled. The time of one begins where the one before it ended, unless nobody was served then."""
        if self._since is None:
            self._since = time.monotonic()

    def after_step(self, output: SchedulerOutput) -> None:
        """A step is over, and its tokens are where they belong."""
        now, since = time.monotonic(), self._since
        self._since = now if self._host.requests else None
        self._steps += 1
        if since is not None and (self._trees.structured or self._steps % _EVERY == 0):
            self._learn(output, now - since)
        for tree in self._trees.structured.values():
            if (served := self._served.get(tree.root.request.request_id)) is not None:
                served.tree = tree
        for name in [name for name in self._silent if self._served[name].tokens()]:
            self._silent.discard(name)
            self._served[name].pace.first = now
        for name in self._served.keys() - self._host.requests.keys():
            self._end(self._served.pop(name), now)
            self._silent.discard(name)

    def _learn(self, output: SchedulerOutput, seconds: float) -> None:
        """Of steps that only decode: what prompts cost per token is something else."""
        scheduled = output.num_scheduled_tokens
        if scheduled and output.total_num_scheduled_tokens == len(scheduled) and seconds > 0:
            requests = self._host.requests
            read = sum([requests[name].num_tokens for name in scheduled if name in requests])
            self._step_time.learn(len(scheduled), read, seconds)
            if self._step_time.error is not None:
                self._tally.observe("step_time_error", self._step_time.error)

    def _end(self, served: _Served, now: float) -> None:
        if served.request.status in _SERVED:
            self._tally.count("slo_met" if served.pace.met(served.tokens(), now) else "slo_missed")
