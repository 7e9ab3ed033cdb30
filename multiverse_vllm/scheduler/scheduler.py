"""vLLM's scheduler with branches: a class between vLLM's base scheduler and the configured one. Nothing is copied.

Every sampled token goes to the request's controller, within vLLM's own loop over the outputs. What the controller
orders is done between steps: a strand that forks or closes comes back once more for the KV of its last tokens
(`draining`), is then parked with its blocks, and vLLM's worker forgets it; branches are ordinary requests whose blocks
begin with their parent's; a join makes the parent an ordinary request again.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

from vllm.sampling_params import RequestOutputKind
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.request_queue import SchedulingPolicy
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.request import Request

from multiverse.decoding.controller import Controller
from multiverse.decoding.prompt_scores import PromptScores
from multiverse.decoding.strand import Strand
from multiverse.serving.containment import Guard
from multiverse.serving.integrity import IntegrityCheck
from multiverse.serving.metrics import Tally
from multiverse.serving.options import Options
from multiverse.serving.pressure import senior_first
from multiverse.structure.reasons import Reason
from multiverse.wire.responses import FIELD
from multiverse_vllm.frontend.stops import may_fork, wanted_stops
from multiverse_vllm.refusals import refuse_configuration
from multiverse_vllm.scheduler.answers import Client
from multiverse_vllm.scheduler.blocks import BlockTable, Move
from multiverse_vllm.scheduler.failures import Failures
from multiverse_vllm.scheduler.forks import Forks
from multiverse_vllm.scheduler.integrity import problems, remains
from multiverse_vllm.scheduler.prefix_cache import PrefixCache
from multiverse_vllm.scheduler.pressure import MemoryPressure
from multiverse_vllm.scheduler.prompt_logprobs import scoring
from multiverse_vllm.scheduler.tokens import Tokens
from multiverse_vllm.scheduler.tree import Member, RequestTree
from multiverse_vllm.tokenizer import bind_model
from multiverse_vllm.worker.runners import ATTRIBUTE, StepPlan

logger = logging.getLogger("vllm.multiverse")


class MultiverseScheduler(Client, Failures, Forks, MemoryPressure, Tokens, Scheduler):
    """vLLM's scheduler with branches. `with_multiverse` puts it under the configured class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        refuse_configuration(self.vllm_config)
        self._options = Options.from_environment()
        self._binding = bind_model(self.vllm_config.model_config, self._options)
        self._table = BlockTable(self.kv_cache_manager)
        cache = self.vllm_config.cache_config
        caching = get_hash_fn_by_name(cache.prefix_caching_hash_algo) if cache.enable_prefix_caching else None
        self._cache = PrefixCache(self._table, caching)
        self._members: dict[str, Member] = {}
        self._turned: list[Member] = []
        self._structured: dict[int, RequestTree] = {}
        self._marked: dict[int, RequestTree] = {}
        self._finished: list[RequestTree] = []
        self._telling: dict[int, RequestTree] = {}
        self._preempted: dict[int, RequestTree] = {}
        self._failed: dict[str, Request] = {}
        self._untold: list[Request] = []
        self._exiles: dict[int, RequestTree] = {}
        self._moves: list[Move] = []
        self.weight_version = "default"
        self.last_outputs: dict[str, EngineCoreOutput] = {}
        self._guard = Guard(self._fail, lambda root: root.request_id, logger)
        self.start_counting()

    def start_counting(self) -> None:
        """Count from zero on."""
        self.tally = Tally()
        self._check = IntegrityCheck(self._options.integrity_interval, self.tally, logger)

    # --- a request comes ---------------------------------------------------------------------------------------

    def add_request(self, request: Request) -> None:
        super().add_request(request)
        self._guard.run(request, self._adopt, request, otherwise=None)
        self._end_failed()

    def _adopt(self, request: Request) -> None:
        """Enrol a request that was just added, if blocks are possible in it."""
        parameters = request.sampling_params
        if self.requests.get(request.request_id) is not request:  # more input for a session, or its end
            return
        options = may_fork(self._options, request, parameters)
        if options is None:
            return
        limits = options.limits(request.max_tokens, self.max_model_len)
        controller = options.controller(self._binding, limits, request.prompt_token_ids, self._admit)
        self.enroll(request, controller, options)

    def enroll(self, request: Request, controller: Controller, options: Options) -> None:
        """Let `controller` decide about a request that was just added."""
        sampling = request.sampling_params
        streams = sampling.output_kind is RequestOutputKind.DELTA
        hasher = request._block_hasher
        rank = request.priority if self.policy is SchedulingPolicy.PRIORITY else 0
        tree = RequestTree(
            controller,
            options,
            streams,
            rank=rank,
            arrived=request.arrival_time,
            stops=wanted_stops(sampling),
            sampling=sampling,
            block_hasher=hasher,
        )
        member = Member(tree, controller.root, request=request)
        tree.members[()] = self._members[request.request_id] = member
        tree.events += tree.events_of(controller.root, controller.begin())
        self._adapt_sampling(member)
        if tree.structured:
            if sampling.prompt_logprobs is not None:
                tree.scores = PromptScores(controller.prompt)
            self._structured[id(tree)] = tree
            self.waiting.remove_request(request)
            self._exiles[id(tree)] = tree
            if self._pause_state is PauseState.UNPAUSED:
                self._begin(member)

    def _admit(self, strand: Strand, labels: Any) -> Reason | None:
        """A fork is refused only if the pool could never hold it; short of memory, branches wait their turn.

        Each branch needs a block for the copy of the partly filled one, and one to grow into.
        """
        needed = strand.kv_length // self._table.size + 2 * len(labels)
        return Reason.KV_CAPACITY if needed > self._table.total() else None

    # --- a step begins -----------------------------------------------------------------------------------------

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        if self._members and self._pause_state is not PauseState.PAUSED_ALL:
            self._arrange()
        output = super().schedule(*args, **kwargs)
        plan, self._moves = StepPlan(self._moves), []
        for tree in self._structured.values():
            for member in tree.members.values():
                if scheduled := output.num_scheduled_tokens.get(member.request.request_id):
                    self._guard.run(tree.root.request, self._follow, member, scheduled, plan, otherwise=None)
        for new in output.scheduled_new_reqs:
            found = self._members.get(new.req_id)
            if found is not None and found.request.num_prompt_tokens < len(new.prompt_token_ids):
                plan.prompts[new.req_id] = found.request.num_prompt_tokens
        if plan.moves or plan.deltas or plan.prompts or plan.scorings:
            setattr(output, ATTRIBUTE, plan)
        return output

    def _follow(self, member: Member, scheduled: int, plan: StepPlan) -> None:
        """Tell the workers about a strand of which tokens were `scheduled`; park it if nothing is sampled behind."""
        request = member.request
        if asked := scoring(member, scheduled):
            plan.scorings[request.request_id] = asked
        if member.delta:
            plan.deltas[request.request_id] = member.delta
        if member.draining and request.num_computed_tokens == request.num_tokens:
            self.running.remove(request)  # steps run in order: what follows may count on its KV
            self._park(member)

    def _arrange(self) -> None:
        """Start and join what can be, oldest trees first; if memory is short, let it be theirs."""
        self._end_failed()
        self._replay_preempted()
        plenty = self._plenty()
        if not plenty:
            self._make_room()
            self._end_failed()
        if self._exiles and self._pause_state is PauseState.UNPAUSED:
            self._readmit()
        trees, self._marked = self._marked, {}
        for tree in senior_first(trees.values()):
            if self._lives(tree):
                self._guard.run(tree.root.request, self._reconcile, tree, otherwise=None)
        self._end_failed()
        if not plenty:
            self.running.sort(key=self._victim_order)
            self._order_queue()

    # --- a token comes -----------------------------------------------------------------------------------------

    def _update_request_with_output(
        self, request: Request, new_token_ids: list[int], is_stale: bool = False
    ) -> tuple[list[int], bool]:
        member = self._members.get(request.request_id)
        if member is None:
            return super()._update_request_with_output(request, new_token_ids, is_stale)
        root = member.tree.root.request
        if root.request_id in self._failed:
            return [], False
        try:
            return self._accept(member, new_token_ids)
        except Exception as error:
            self._guard.caught(root, error)
            return [], False

    # --- a step is over ----------------------------------------------------------------------------------------

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> dict[int, EngineCoreOutputs]:
        plan: StepPlan | None = getattr(scheduler_output, ATTRIBUTE, None)
        if plan is not None and plan.scorings:
            self._take_scores(plan.scorings, model_runner_output.prompt_logprobs_dict)
        results = super().update_from_output(scheduler_output, model_runner_output)
        if not self._members and not self._failed and not self._untold:
            return results
        own = self._collect(results)
        self._replay_preempted()
        turned, self._turned = self._turned, []
        for member in turned:
            if id(member.tree) not in self._exiles and self._lives(member.tree):
                self._guard.run(member.tree.root.request, self._turn, member, otherwise=None)
        self._answer(own, results)
        self._end_failed()
        self._tell_failed(results)
        if self._check.is_due() or not self.requests:
            self._check.enter(problems(self) if self.requests else remains(self))
        return results

    def make_stats(self, *args: Any, **kwargs: Any) -> Any:
        """vLLM's statistics, with ours in the field of KV connectors, of which there is none."""
        stats = super().make_stats(*args, **kwargs)
        if stats is not None and (news := self._guard.aside(self._figures, otherwise=None)) is not None:
            stats.kv_connector_stats = {FIELD: news}
        return stats

    def _figures(self) -> dict[str, Any] | None:
        members = [member for tree in self._structured.values() for member in tree.members.values()]
        parked = sum(member.parked for member in members)
        running = sum(member.strand.parent is not None and not member.parked for member in members)
        return self.tally.drain(running_branches=running, parked_sequences=parked)

    def replace_weights(self, version: str) -> None:
        """The weights are those of `version` from now on."""
        if version != self.weight_version:
            for tree in {id(member.tree): member.tree for member in self._members.values()}.values():
                tree.weights.replaced(tree.controller.root, self.weight_version)
            self.weight_version = version

    def _lives(self, tree: RequestTree) -> bool:
        name = tree.root.request.request_id
        return tree.controller.finish_reason is None and name in self._members and name not in self._failed


@functools.cache
def with_multiverse(base: type[Scheduler]) -> type[Scheduler]:
    """The scheduler class `base` with branches.

    Ours comes after `base` and before vLLM's own, so that what `base` adds (`AsyncScheduler` counts the tokens under
    way) holds for branches too.
    """
    if base is Scheduler:
        return MultiverseScheduler
    return type(f"Multiverse{base.__name__}", (base, MultiverseScheduler), {"__module__": __name__})
