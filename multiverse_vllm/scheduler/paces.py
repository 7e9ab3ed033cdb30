"""What vLLM says of how its requests are served and its steps take (`multiverse.serving.admission.paces`)."""

from __future__ import annotations

import time
from collections.abc import Set
from functools import partial

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.request import RequestStatus

from multiverse.serving.admission import paces
from multiverse.serving.admission.paces import Served
from multiverse.serving.admission.promises import promised
from multiverse.serving.admission.step_time import StepTime
from multiverse.serving.options import Options
from multiverse_vllm.sampling import request_options
from multiverse_vllm.scheduler.host import Request
from multiverse_vllm.scheduler.state import State

_SERVED = (RequestStatus.FINISHED_STOPPED, RequestStatus.FINISHED_LENGTH_CAPPED)


class Paces(paces.Paces[Request]):
    """The paces of one scheduler.

    Args:
        step_time: learns from its steps.
    """

    def __init__(self, state: State, options: Options, step_time: StepTime) -> None:
        super().__init__(step_time, state.tally)
        self._host, self._trees, self._options = state.host, state.trees, options

    def admit(self, request: Request) -> None:
        """A client's request was added."""
        sampling = request.sampling_params
        if sampling is None or request.resumable or self._host.requests.get(request.request_id) is not request:
            return
        options = request_options(self._options, sampling)
        slo = promised(options.slo, options.tpot_slo_ms, options.ttft_slo_ms)
        self.promise(request.request_id, request, slo, request.max_tokens, time.monotonic())

    def said(self, client: Request) -> int:
        return client.num_output_tokens

    def gone(self) -> Set[str]:
        return self._served.keys() - self._host.requests.keys()

    def is_whole(self, served: Served[Request]) -> bool:
        return served.client.status in _SERVED

    def before_step(self) -> None:
        """A step is scheduled."""
        self.begin(time.monotonic())

    def after_step(self, output: SchedulerOutput) -> None:
        """A step is over, and its tokens are where they belong."""
        trees = ((tree.root.request.request_id, tree) for tree in self._trees.structured.values())
        self.end(time.monotonic(), bool(self._host.requests), trees, partial(self._decoded, output))

    def _decoded(self, output: SchedulerOutput) -> tuple[int, int]:
        scheduled, requests = output.num_scheduled_tokens, self._host.requests
        drafted = sum(map(len, output.scheduled_spec_decode_tokens.values()))
        if output.total_num_scheduled_tokens != len(scheduled) + drafted:
            return 0, 0
        # rows, as steps are planned by: what is drafted for one is in how long it takes
        return len(scheduled), sum([requests[name].num_tokens for name in scheduled if name in requests])
