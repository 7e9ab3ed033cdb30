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
from vllm.v1.core.sched.utils import check_stop
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.request import Request

from multiverse.budgets import FinishReason, Reason
from multiverse.controller import Controller
from multiverse.metrics import Tally
from multiverse.options import Options
from multiverse.responses import FIELD
from multiverse.serving.containment import Guard
from multiverse.serving.integrity import IntegrityCheck
from multiverse.serving.pressure import senior_first
from multiverse.strand import Status, Strand
from multiverse_vllm.blocks import BlockTable, Move
from multiverse_vllm.client import STATUS, Client
from multiverse_vllm.failures import Failures
from multiverse_vllm.forks import Forks
from multiverse_vllm.frontend import request_options
from multiverse_vllm.integrity import problems, remains
from multiverse_vllm.memory import MemoryPressure
from multiverse_vllm.prefix_cache import PrefixCache
from multiverse_vllm.refusals import refuse_configuration
from multiverse_vllm.tokenizer import bind_model
from multiverse_vllm.tree import Member, RequestTree
from multiverse_vllm.worker import ATTRIBUTE, StepPlan

logger = logging.getLogger("vllm.multiverse")


class MultiverseScheduler(Client, Failures, Forks, MemoryPressure, Scheduler):
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
        if parameters is None or request.use_structured_output or request.prompt_token_ids is None or request.resumable:
            return
        if self.requests.get(request.request_id) is not request:  # more input for a session, or its end
            return
        options = request_options(self._options, parameters)
        if not options.enabled:
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
            sampling=sampling,
            block_hasher=hasher,
        )
        member = Member(tree, controller.root, request=request)
        tree.members[()] = self._members[request.request_id] = member
        tree.events += tree.news(controller.root, controller.begin())
        self._adapt_sampling(member)
        if tree.structured:
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
                if member.request.request_id in output.num_scheduled_tokens:
                    self._guard.run(tree.root.request, self._follow, member, plan, otherwise=None)
        for new in output.scheduled_new_reqs:
            found = self._members.get(new.req_id)
            if found is not None and found.request.num_prompt_tokens < len(new.prompt_token_ids):
                plan.prompts[new.req_id] = found.request.num_prompt_tokens
        if plan.moves or plan.deltas or plan.prompts:
            setattr(output, ATTRIBUTE, plan)
        return output

    def _follow(self, member: Member, plan: StepPlan) -> None:
        """Tell the workers about a strand that was scheduled; park it if nothing is to be sampled behind."""
        request = member.request
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

    def _accept(self, member: Member, new_token_ids: list[int]) -> tuple[list[int], bool]:
        """Hand a sampled token to the controller; as `_update_request_with_output`."""
        request = member.request
        (token,) = new_token_ids
        tree, strand = member.tree, member.strand
        ends = strand.parent is not None and self._stops(member, token)
        offset = len(strand.tokens)
        actions = tree.controller.end(strand, FinishReason.STOP) if ends else tree.controller.accept(strand, token)
        if news := tree.news(strand, actions):
            tree.events += news
            self._telling[id(tree)] = tree
        if not actions and len(strand.tokens) > offset:  # the common case
            member.sampled, member.written = offset, offset + 1
            request.append_output_token_ids(token)
            kept = True
        else:
            kept = self._obey(member, token, offset, ends)
        if tree.controller.finish_reason is not None:
            self._finished.append(tree)
            if strand.parent is None:
                request.status = STATUS[tree.controller.finish_reason]
                return new_token_ids, True
        elif strand.parent is None and strand.status is Status.RUNNING and check_stop(request, self.max_model_len):
            tree.events += tree.news(strand, tree.controller.end(strand, FinishReason.STOP))
            self._finished.append(tree)
            return new_token_ids, True
        return (new_token_ids if kept else []), False

    def _obey(self, member: Member, token: int, offset: int, ends: bool) -> bool:
        """Note what the controller decided about a token. Returns whether the token is part of the strand."""
        tree, strand, request = member.tree, member.strand, member.request
        kept = not ends and strand.tokens[offset : offset + 1] == [token]
        member.sampled = offset if kept else None
        member.certain = request.num_tokens + kept
        request.append_output_token_ids(strand.tokens[member.written :])
        member.written = len(strand.tokens)
        if strand.status is not Status.RUNNING and tree.controller.finish_reason is None:
            self._turned.append(member)
            if strand.parent is None and len(strand.forks) == 1:  # until now, vLLM has answered by itself
                self._structured[id(tree)] = tree
                tree.stream.skip(offset)
        return kept

    def _stops(self, member: Member, token: int) -> bool:
        """Whether `token` ends the branch: end of sequence, a stop token, or the last piece of a stop string.

        Like the end of sequence it is then no part of the branch, so vLLM's front end, which looks for stop strings in
        the document and would end the request there, doesn't see it.
        """
        sampling = member.tree.sampling
        if token == sampling.eos_token_id or token in (sampling.stop_token_ids or ()):
            return True
        if not sampling.stop:
            return False
        tail = member.strand.tokens[-max(map(len, sampling.stop)) :]
        text = self._binding.text([*tail, token])
        return any(stop in text for stop in sampling.stop)

    # --- a step is over ----------------------------------------------------------------------------------------

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> dict[int, EngineCoreOutputs]:
        results = super().update_from_output(scheduler_output, model_runner_output)
        if not self._members and not self._failed and not self._untold:
            return results
        self._replay_preempted()
        turned, self._turned = self._turned, []
        for member in turned:
            if id(member.tree) not in self._exiles and self._lives(member.tree):
                self._guard.run(member.tree.root.request, self._turn, member, otherwise=None)
        self._answer(results)
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
