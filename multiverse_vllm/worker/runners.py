"""The worker's part: token moves before a step, position deltas after the slot mapping of a step.

Both travel as an attribute of `SchedulerOutput`. They are plain data about requests and blocks, which are the same on
every rank, so every tensor-parallel rank does the same to its own heads; data-parallel engines share nothing. vLLM has
two model runners; they are wrapped at the same three moments, and nothing here knows which models or devices they run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from multiverse_vllm.attention import steps_of
from multiverse_vllm.channels import MOVER, PLAN, SCORINGS, SHIFTS, STEPS
from multiverse_vllm.plan import StepPlan
from multiverse_vllm.refusals import refuse_unsupported
from multiverse_vllm.worker.hooks import has_v2
from multiverse_vllm.worker.kv_layout import KVMover
from multiverse_vllm.worker.scores import score

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.outputs import LogprobsTensors
    from vllm.v1.worker.gpu.input_batch import InputBatch
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner as V2Runner
    from vllm.v1.worker.gpu.sample.prompt_logprob import PromptLogprobsWorker
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner as V1Runner

Method = Callable[..., Any]


def install() -> None:
    """Wrap the V1 model runner, and the V2 model runner if this vLLM has it."""
    from vllm.v1.worker import gpu_model_runner as v1

    _wrap(v1.GPUModelRunner, "initialize_kv_cache", _prepare_moves)
    _wrap(v1.GPUModelRunner, "_update_states", _move_first)
    _wrap(v1.GPUModelRunner, "_update_states", _restore_outputs)
    _wrap(v1.GPUModelRunner, "_preprocess", _shift_v1)
    _wrap(v1.GPUModelRunner, "sample_tokens", _spare_generators)
    _wrap(v1.GPUModelRunner, "_get_prompt_logprobs_dict", _score_v1)
    if not has_v2():
        return
    from vllm.v1.worker.gpu import model_runner as v2
    from vllm.v1.worker.gpu.sample.prompt_logprob import PromptLogprobsWorker

    _wrap(v2.GPUModelRunner, "initialize_kv_cache", _prepare_moves)
    _wrap(v2.GPUModelRunner, "update_requests", _move_first)
    _wrap(v2.GPUModelRunner, "prepare_attn", _shift_v2)
    _wrap(PromptLogprobsWorker, "compute_prompt_logprobs", _score_v2)


def shift(positions: torch.Tensor, requests: Sequence[str], starts: np.ndarray, plan: StepPlan) -> None:
    """Add the deltas to the positions of a batch, in place: CUDA graphs read this very buffer.

    Args:
        positions: int64 `[tokens]` or longer, on any device; what is beyond the batch (padding) stays.
        requests: ids in batch order.
        starts: int32 `[len(requests) + 1]` or longer: where the tokens of each request begin, and where the last end.
        plan: with `deltas` and `heads`; 0 for requests that it does not name.
    """
    from vllm.utils.torch_utils import async_tensor_h2d

    each = np.array([plan.deltas.get(request, 0) for request in requests], np.int64)
    added: np.ndarray = np.repeat(each, np.diff(starts[: len(requests) + 1]))
    for row, request in enumerate(requests if plan.heads else ()):
        if request in plan.heads:
            count, delta = plan.heads[request]
            added[starts[row] : starts[row] + count] = delta
    positions[: len(added)] += async_tensor_h2d(added, device=positions.device)


def _wrap(runner: type, name: str, wrapper: Callable[[Method], Method]) -> None:
    original = getattr(runner, name)
    setattr(runner, name, functools.wraps(original)(wrapper(original)))


def _plan(scheduler_output: SchedulerOutput) -> StepPlan:
    plan: StepPlan | None = getattr(scheduler_output, PLAN, None)
    return plan or StepPlan()


def _prepare_moves(initialize_kv_cache: Method) -> Method:
    """At start: refuse what can't work, and learn where a token's KV is. vLLM may do this more than once."""

    def wrapped(self: V1Runner | V2Runner, *args: object, **kwargs: object) -> None:
        initialize_kv_cache(self, *args, **kwargs)
        refuse_unsupported(self)
        setattr(self, MOVER, KVMover(self))
        setattr(self, STEPS, steps_of(self))

    return wrapped


def _move_first(update: Method) -> Method:
    """Before the requests' states are updated: its copies of partly filled blocks may read what is moved here."""

    def wrapped(self: V1Runner | V2Runner, scheduler_output: SchedulerOutput) -> object:
        plan = _plan(scheduler_output)
        setattr(self, SHIFTS, plan if plan.deltas or plan.heads else None)
        setattr(self, SCORINGS, plan.scorings)
        if scorer := getattr(self, "prompt_logprobs_worker", None):  # V2's, which does not know its runner
            setattr(scorer, SCORINGS, (self, plan.scorings))
        if plan.moves:
            getattr(self, MOVER).move(plan.moves)
        result = update(self, scheduler_output)
        if steps := getattr(self, STEPS, None):
            steps.begin(scheduler_output)
            if not hasattr(self, "prepare_attn"):  # V1, whose rows are in order from here on
                steps.order(self.input_batch.req_ids)
        return result

    return wrapped


def _restore_outputs(update: Method) -> Method:
    """V1 takes all tokens of a new request for its prompt; penalties have to know which were generated."""

    def wrapped(self: V1Runner, scheduler_output: SchedulerOutput) -> object:
        result = update(self, scheduler_output)
        prompts = _plan(scheduler_output).prompts
        for request, length in prompts.items():
            state, batch = self.requests[request], self.input_batch
            state.output_token_ids += state.prompt_token_ids[length:]  # in place: the batch holds the same list
            state.prompt_token_ids = state.prompt_token_ids[:length]
            state.num_prompt_tokens = batch.num_prompt_tokens[batch.req_id_to_index[request]] = length
        if prompts:
            self.input_batch.sampling_metadata = self.input_batch._make_sampling_metadata()
        return result

    return wrapped


def _shift_v1(preprocess: Method) -> Method:
    """When the model's inputs are gathered: the slot mapping, made of the same positions, is there already."""

    def wrapped(self: V1Runner, *args: object, **kwargs: object) -> object:
        result = preprocess(self, *args, **kwargs)
        if plan := getattr(self, SHIFTS, None):
            shift(self.positions, self.input_batch.req_ids, self.query_start_loc.np, plan)
        return result

    return wrapped


def _spare_generators(sample_tokens: Method) -> Method:
    """A seeded request whose prefill is not done does not draw from its generator: vLLM rewinds it, and a CPU's can't.

    Without this, any such request takes the engine down on CPUs: a prompt cut in chunks, a replay of blocks.
    """

    def wrapped(self: V1Runner, grammar_output: object) -> object:
        generators = self.input_batch.generators
        unfinished = np.nonzero(self.discard_request_mask.np[: self.input_batch.num_reqs])[0]
        spared = {int(row): generators.pop(int(row)) for row in unfinished if int(row) in generators}
        try:
            return sample_tokens(self, grammar_output)
        finally:
            generators.update(spared)

    return wrapped


def _shift_v2(prepare_attn: Method) -> Method:
    """When the slot mapping of a real batch was computed; whatever model state then prepares the inputs."""

    def wrapped(self: V2Runner, input_batch: InputBatch) -> object:
        result = prepare_attn(self, input_batch)
        if plan := getattr(self, SHIFTS, None):
            shift(input_batch.positions, input_batch.req_ids, input_batch.query_start_loc_np, plan)
        if steps := getattr(self, STEPS, None):
            steps.order(input_batch.req_ids)
        return result

    return wrapped


def _score_v1(compute: Method) -> Method:
    """Where vLLM scores prompts."""

    def wrapped(self: V1Runner, hidden_states: torch.Tensor, num_scheduled_tokens: object) -> dict[str, object]:
        found: dict[str, object] = compute(self, hidden_states, num_scheduled_tokens)
        if scorings := getattr(self, SCORINGS, None):
            found |= score(self, scorings, hidden_states, self.input_batch.req_ids, self.query_start_loc.np)
        return found

    return wrapped


def _score_v2(compute: Method) -> Method:
    """As `_score_v1`."""

    def wrapped(
        self: PromptLogprobsWorker, logits_fn: object, hidden: torch.Tensor, input_batch: InputBatch, *args: object
    ) -> dict[str, LogprobsTensors]:
        found: dict[str, LogprobsTensors] = compute(self, logits_fn, hidden, input_batch, *args)
        runner, scorings = getattr(self, SCORINGS, (None, {}))
        if scorings:
            found |= score(runner, scorings, hidden, input_batch.req_ids, input_batch.query_start_loc_np)
        return found

    return wrapped
