"""vLLM's scheduler with branches: a class between vLLM's base scheduler and the configured one. Nothing is copied.

Requests that have sampled no tag are vLLM's alone (`deferral`). Those that have get a controller, and each of their
tokens goes to it within vLLM's own loop over the outputs. What the controller orders is done between steps: a strand
that forks or closes comes back once more for the KV of its last tokens (`draining`), is then parked with its blocks,
and vLLM's worker forgets it; branches are ordinary requests whose blocks begin with their parent's; a join makes the
parent an ordinary request again.

The class itself only overrides; what is done is done by the objects that it has.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from contextlib import nullcontext

from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.metrics.stats import SchedulerStats
from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from multiverse.serving.admission.policies import make_policy
from multiverse.serving.integrity import IntegrityCheck
from multiverse.serving.metrics import Tally
from multiverse.serving.options import Options
from multiverse_vllm.channels import FIGURES
from multiverse_vllm.compat import BASE_COUNTS_PLACEHOLDERS
from multiverse_vllm.refusals import refuse_configuration
from multiverse_vllm.scheduler.admission import Admission
from multiverse_vllm.scheduler.answers import Answers
from multiverse_vllm.scheduler.blocks import BlockTable
from multiverse_vllm.scheduler.deferral import Deferral
from multiverse_vllm.scheduler.demand import Demand
from multiverse_vllm.scheduler.drafts import Drafts
from multiverse_vllm.scheduler.failures import Failures
from multiverse_vllm.scheduler.forks import Forks
from multiverse_vllm.scheduler.holding import Holding
from multiverse_vllm.scheduler.integrity import Books
from multiverse_vllm.scheduler.memory import MemoryPressure
from multiverse_vllm.scheduler.paces import Paces
from multiverse_vllm.scheduler.prefix_cache import PrefixCache
from multiverse_vllm.scheduler.queue import Queue
from multiverse_vllm.scheduler.state import State
from multiverse_vllm.scheduler.steps import Steps
from multiverse_vllm.scheduler.tokens import Tokens
from multiverse_vllm.scheduler.trees import Trees
from multiverse_vllm.tokenizer import bind_model

logger = logging.getLogger("vllm.multiverse")


class MultiverseScheduler(Scheduler):
    """vLLM's scheduler with branches. `with_multiverse` puts it under the configured class.

    Attributes:
        variants: the class of this scheduler in a step in which nothing is to be decided, and in the others.
    """

    variants: tuple[type[MultiverseScheduler], type[MultiverseScheduler]]

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        refuse_configuration(self.vllm_config)
        self._options = Options.from_environment()
        self.binding = bind_model(self.vllm_config.model_config, self._options)
        self.trees, self.queue, self.tally = Trees(self, logger), Queue(self, super().finish_requests), Tally()
        (manager,) = self.kv_cache_manager.coordinator.single_type_managers
        self.table = BlockTable(self.kv_cache_manager.block_pool, manager)
        cache = self.vllm_config.cache_config
        hasher = get_hash_fn_by_name(cache.prefix_caching_hash_algo) if cache.enable_prefix_caching else None
        state = State(self, self.trees, self.queue, self.table, self.tally)
        self.demand = Demand(state)
        self.forks = Forks(state, PrefixCache(self.table, hasher), self.demand, self.binding.dialect.join == "splice")
        self.memory = MemoryPressure(state, self.demand, self.forks)
        self.admission = Admission(state, self.forks, self._options, self.binding)
        self.tokens = Tokens(state)
        self.answers = Answers(state, self.tokens)
        self.deferral = Deferral(state, self.admission, self.answers, self.binding)
        self.failures = Failures(state, self.answers)
        self.drafts = Drafts(state, self._options)
        policy, self.paces, holding = make_policy(self._options.admission), None, None
        if policy is not None:
            self.paces = Paces(state, self._options, policy.step_time) if policy.step_time is not None else None
            holding = Holding(state, policy, self.paces)
        parts = (self.demand, self.forks, self.memory, self.tokens, self.answers, self.failures, holding)
        self.steps = Steps(state, *parts)
        self.books = Books(state, self.memory, self.tokens)
        self.start_counting()

    def start_counting(self) -> None:
        """Count from zero on."""
        self.tally.reset()
        self._check = IntegrityCheck(self._options.integrity_interval, self.tally, logger)

    def add_request(self, request: Request) -> None:
        super().add_request(request)
        self.trees.guard.run(request, self.admission.admit, request, otherwise=None)
        if self.paces is not None:
            self.trees.guard.aside(self.paces.admit, request, otherwise=None)
        self.failures.end_failed()

    def schedule(self, *args: object, **kwargs: object) -> SchedulerOutput:
        if self.paces is not None:
            self.paces.before_step()
        if self.trees.members and self._pause_state is not PauseState.PAUSED_ALL:
            self.steps.before_schedule(begins=self._pause_state is PauseState.UNPAUSED)
        with self.queue.draining() if self._pause_state is PauseState.PAUSED_NEW else nullcontext():
            output = super().schedule(*args, **kwargs)
        self.steps.after_schedule(output)
        return output

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        served = bool(self.trees.deferred)
        if scheduler_output.scheduled_spec_decode_tokens:
            self.trees.guard.aside(self.drafts.note, scheduler_output, model_runner_output, otherwise=None)
        deciding = self.deferral.watch(model_runner_output)
        self.steps.take_scores(scheduler_output, model_runner_output)
        variant = self.variants[bool(self.trees.members) and self.tokens.ask(deciding)]
        if self.__class__ is not variant:
            self.__class__ = variant
        results: dict[int, EngineCoreOutputs] = super().update_from_output(scheduler_output, model_runner_output)
        self.deferral.settle(results)
        if (self.steps.process_results(results) or served) and (self._check.is_due() or not self.requests):
            self._check.enter(self.books.problems() if self.requests else self.books.remains())
        if self.paces is not None:
            self.trees.guard.aside(self.paces.after_step, scheduler_output, otherwise=None)
        return results

    def update_draft_token_ids(self, draft_token_ids: DraftTokenIds) -> None:
        super().update_draft_token_ids(draft_token_ids)
        self.trees.guard.aside(self.drafts.trim, draft_token_ids.req_ids, otherwise=None)

    def finish_requests(self, request_ids: str | Iterable[str] | None, finished_status: RequestStatus) -> list[Request]:
        """An aborted request takes its branches with it. Returns those of them that clients know."""
        if request_ids is None:
            wanted = set(self.requests)
        else:
            wanted = {request_ids} if isinstance(request_ids, str) else set(request_ids)
        self.deferral.abort(wanted, by_operator=request_ids is None)
        branches = self.answers.abort(wanted, by_operator=request_ids is None)
        finished = super().finish_requests(wanted | branches, finished_status)
        if not self.requests:  # no step follows in which copies and moves could be done
            self.table.drop_pending()
            self._check.enter(self.books.remains())
        return [request for request in finished if request.request_id not in branches]

    def replace_weights(self, version: str) -> None:
        """The weights are those of `version` from now on."""
        if version != self.answers.weight_version:
            self.deferral.enroll_all()
        self.answers.replace_weights(version)
        self.failures.end_failed()

    def _preempt_request(self, request: Request, timestamp: float, drop_stale_output: bool = False) -> None:
        structured = self.memory.note_preemption(request)
        super()._preempt_request(request, timestamp, drop_stale_output or structured)

    def reset_prefix_cache(self, reset_running_requests: bool = False, reset_connector: bool = False) -> bool:
        if reset_running_requests:
            self.memory.preempt_all()
            self.failures.end_failed()
            self.table.drop_pending()
        return bool(super().reset_prefix_cache(reset_running_requests, reset_connector))

    def get_num_unfinished_requests(self) -> int:
        """vLLM counts its queues; a tree may be in none of them between two steps.

        While it waits for what has begun to end, before a pause, those that have given up their KV have not begun.
        """
        count = int(super().get_num_unfinished_requests())
        if self._pause_state == PauseState.UNPAUSED:
            return max(count, len(self.trees.members) + len(self.trees.deferred))
        if self._pause_state == PauseState.PAUSED_NEW:
            return max(count, sum(map(self.demand.holds, self.trees.structured.values())))
        return count

    def make_stats(self, *args: object, **kwargs: object) -> SchedulerStats | None:
        """vLLM's statistics, with ours in the field of KV connectors, of which there is none."""
        stats = super().make_stats(*args, **kwargs)
        if stats is not None and (figures := self.trees.guard.aside(self._figures, otherwise=None)) is not None:
            stats.kv_connector_stats = {FIGURES: figures}
        return stats

    def _figures(self) -> dict[str, object] | None:
        return self.tally.drain(**self.trees.gauges())


class DecidingScheduler(MultiverseScheduler):
    """What it is in a step in which something may be decided. Else vLLM's loop makes no call more than without us."""

    def _update_request_with_output(
        self, request: Request, new_token_ids: list[int], is_stale: bool = False
    ) -> tuple[list[int], bool]:
        member = self.tokens.asked.get(request.request_id)
        if member is None:
            tokens, stopped = super()._update_request_with_output(request, new_token_ids, is_stale)
            return tokens, stopped
        root = member.tree.root.request
        if root.request_id in self.trees.failed:
            return [], False
        try:
            tokens, stopped = self.tokens.accept(member, new_token_ids)
            if BASE_COUNTS_PLACEHOLDERS and not is_stale and request.num_output_placeholders:
                request.num_output_placeholders -= len(tokens)
                assert request.num_output_placeholders >= 0
            return tokens, stopped
        except Exception as error:
            self.trees.guard.caught(root, error)
            return [], False


@functools.cache
def with_multiverse(base: type[Scheduler]) -> type[MultiverseScheduler]:
    """The scheduler class `base` with branches.

    Ours comes after `base` and before vLLM's own, so that what `base` adds (`AsyncScheduler` counts the tokens under
    way) holds for branches too.
    """
    resting: type[MultiverseScheduler] = MultiverseScheduler
    deciding: type[MultiverseScheduler] = DecidingScheduler
    if base is not Scheduler:
        resting = type(f"Multiverse{base.__name__}", (base, resting), {"__module__": __name__})
        deciding = type(f"Deciding{base.__name__}", (base, deciding), {"__module__": __name__})
    resting.variants = deciding.variants = resting, deciding
    return resting
