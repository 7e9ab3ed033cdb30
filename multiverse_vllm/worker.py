"""The worker's part: token moves before a step, position deltas after the slot mapping of a step.

Both travel as an attribute of `SchedulerOutput`, which is pickled with it, so every rank does the same.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

from multiverse_vllm.blocks import Move

ATTRIBUTE = "multiverse"


@dataclass
class StepPlan:
    """What the workers do beside vLLM's own step.

    Attributes:
        moves: KV tokens to copy before the step.
        deltas: by request id, what to add to the positions of its scheduled tokens.
    """

    moves: list[Move] = field(default_factory=list)
    deltas: dict[str, int] = field(default_factory=dict)


def install() -> None:
    """Wrap the two methods of the V1 model runner."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    from multiverse_vllm.kv_layout import KVMover

    update_states, preprocess = GPUModelRunner._update_states, GPUModelRunner._preprocess

    @functools.wraps(update_states)
    def _update_states(self: Any, scheduler_output: Any) -> Any:
        plan: StepPlan | None = getattr(scheduler_output, ATTRIBUTE, None)
        if plan is not None and plan.moves:
            KVMover.of(self).move(plan.moves)  # before the copies of partly filled blocks, which may read the result
        return update_states(self, scheduler_output)

    @functools.wraps(preprocess)
    def _preprocess(self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        result = preprocess(self, scheduler_output, *args, **kwargs)
        plan: StepPlan | None = getattr(scheduler_output, ATTRIBUTE, None)
        if plan is not None and plan.deltas:
            starts = self.query_start_loc.np
            for request, delta in plan.deltas.items():
                row = self.input_batch.req_id_to_index[request]
                self.positions[int(starts[row]) : int(starts[row + 1])] += delta  # persistent: CUDA graphs read it
        return result

    GPUModelRunner._update_states = _update_states
    GPUModelRunner._preprocess = _preprocess
