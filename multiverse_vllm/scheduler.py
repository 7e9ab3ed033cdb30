"""vLLM's scheduler with branches. A mixin in front of whichever scheduler class is configured; nothing is copied.

Every sampled token goes to the request's controller, within vLLM's own loop over the outputs. What the controller
orders is done between steps: a strand that forks or closes comes back once more for the KV of its last tokens
(`draining`), is then parked with its blocks, and vLLM's worker forgets it; branches are ordinary requests whose blocks
begin with their parent's; a join makes the parent an ordinary request again.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from typing import Any

from vllm.v1.core.sched.utils import check_stop
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.request import Request, RequestStatus

from multiverse.binding import bind, detect
from multiverse.budgets import FinishReason, Limits, Reason
from multiverse.controller import Controller
from multiverse.errors import UnsupportedHostError
from multiverse.replay import Part
from multiverse.strand import Status, Strand, derive_seed
from multiverse_vllm.blocks import BlockTable, Move
from multiverse_vllm.memory import MemoryPressure
from multiverse_vllm.outputs import document_logprobs, record_rows
from multiverse_vllm.tree import Member, RequestTree
from multiverse_vllm.worker import ATTRIBUTE, StepPlan

logger = logging.getLogger("vllm.multiverse")

_STATUS = {
    FinishReason.LENGTH: RequestStatus.FINISHED_LENGTH_CAPPED,
    FinishReason.STOP: RequestStatus.FINISHED_STOPPED,
    FinishReason.ABORT: RequestStatus.FINISHED_ABORTED,
}


class MultiverseScheduler(MemoryPressure):
    """The mixin. `with_multiverse` puts it in front of a scheduler class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._refuse_unsupported()
        self._table = BlockTable(self.kv_cache_manager)
        self._binding = self._bind()
        self._members: dict[str, Member] = {}
        self._forked: list[Member] = []
        self._preempted: list[RequestTree] = []
        self._failed: list[RequestTree] = []
        self._moves: list[Move] = []
        self._sources: list[Any] = []
        self._sources_in_flight: list[Any] = []
        self.multiverse_counts = {"forks": 0, "joins": 0, "moved_tokens": 0, "replays": 0}

    def _refuse_unsupported(self) -> None:
        checks = {
            "speculative decoding (--speculative-config)": self.num_spec_tokens > 0,
            "a KV connector (--kv-transfer-config)": self.connector is not None,
            "pipeline parallelism (--pipeline-parallel-size)": self.parallel_config.pipeline_parallel_size > 1,
            "models with several kinds of KV cache": len(self.kv_cache_manager.coordinator.single_type_managers) != 1,
            "encoder-decoder models": self.is_encoder_decoder,
        }
        if unsupported := [name for name, present in checks.items() if present]:
            raise UnsupportedHostError(f"multiverse does not work with {', '.join(unsupported)}")

    def _bind(self) -> Any:
        from transformers import AutoTokenizer

        config = self.vllm_config.model_config
        tokenizer = AutoTokenizer.from_pretrained(
            config.tokenizer, revision=config.tokenizer_revision, trust_remote_code=config.trust_remote_code
        )
        return bind(detect(tokenizer), tokenizer, eos=())  # vLLM decides what ends a sequence

    # --- a request comes ---------------------------------------------------------------------------------------

    def add_request(self, request: Request) -> None:
        super().add_request(request)
        parameters = request.sampling_params
        if parameters is None or request.use_structured_output or request.prompt_token_ids is None or request.resumable:
            return
        limits = Limits(max_tokens=request.max_tokens, context_length=self.max_model_len)
        controller = Controller(self._binding, limits, request.prompt_token_ids, admit=self._admit)
        tree = RequestTree(controller, seed=parameters.seed, block_hasher=request._block_hasher)
        member = Member(tree, controller.root, request)
        tree.members[()] = self._members[request.request_id] = member
        controller.begin()
        if tree.structured:
            self.waiting.remove_request(request)
            self._begin(member)

    def _admit(self, strand: Strand, labels: Any) -> Reason | None:
        """A fork is refused only if the pool could never hold it; short of memory, branches wait their turn.

        Each branch needs a block for the copy of the partly filled one, and one to grow into.
        """
        needed = strand.kv_length // self._table.size + 2 * len(labels)
        return Reason.KV_CAPACITY if needed > self._table.total() else None

    def _begin(self, root: Member) -> None:
        """Queue the root with its first part, which is causal and may use the prefix cache."""
        first = root.parts()[0]
        request = root.request
        request._all_token_ids[:] = first.tokens
        request._block_hasher = root.tree.block_hasher
        request.block_hashes = []
        request.update_block_hashes()
        request.num_computed_tokens = 0
        root.given(0)
        self._enter(root)

    # --- before a step -----------------------------------------------------------------------------------------

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        if self._members:
            self._make_room()
            for tree in self._trees():
                self._reconcile(tree)
            self.running.sort(key=self._victim_order)
            self._order_queue()
        output = super().schedule(*args, **kwargs)
        plan = StepPlan(self._moves)
        for request_id in output.num_scheduled_tokens:
            member = self._members.get(request_id)
            if member is not None and member.delta:
                plan.deltas[request_id] = member.delta
        if plan.moves or plan.deltas:
            setattr(output, ATTRIBUTE, plan)
        self._sources_in_flight += self._sources
        self._moves, self._sources = [], []
        return output

    # --- a token comes -----------------------------------------------------------------------------------------

    def _update_request_with_output(
        self, request: Request, new_token_ids: list[int], is_stale: bool = False
    ) -> tuple[list[int], bool]:
        member = self._members.get(request.request_id)
        if member is None:
            return super()._update_request_with_output(request, new_token_ids, is_stale)
        if member.draining:
            return [], False  # sampled behind tokens that only had to be computed
        (token,) = new_token_ids
        strand, controller = member.strand, member.tree.controller
        stops = token == request.sampling_params.eos_token_id or token in (request.sampling_params.stop_token_ids or ())
        ends = stops and strand.parent is not None
        offset = len(strand.tokens)
        actions = controller.end(strand, FinishReason.STOP) if ends else controller.accept(strand, token)
        kept = strand.tokens[offset : offset + 1] == [token] and not ends
        member.sampled = offset if kept else None
        request.append_output_token_ids(strand.tokens[member.written :])
        member.written = len(strand.tokens)
        if strand.parent is None and controller.finish_reason is not None:
            request.status = _STATUS[controller.finish_reason]
            return new_token_ids, True
        if actions and strand.status is not Status.RUNNING:
            self._forked.append(member)
        elif strand.parent is None and check_stop(request, self.max_model_len):
            controller.end(strand, FinishReason.STOP)
            return new_token_ids, True
        return (new_token_ids if kept else []), False

    # --- after a step ------------------------------------------------------------------------------------------

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> dict[int, EngineCoreOutputs]:
        results = super().update_from_output(scheduler_output, model_runner_output)
        self._table.release(self._sources_in_flight)
        self._sources_in_flight = []
        if not self._members:
            return results
        failed, self._failed = self._failed, []
        for tree in failed:
            self._fail(tree, results)
        touched: dict[int, RequestTree] = {}
        for request_id in scheduler_output.num_scheduled_tokens:
            member = self._members.get(request_id)
            if member is None:
                continue
            touched[id(member.tree)] = member.tree
            if self._drained(member):
                self._park(member)
        for member in self._forked:
            member.draining = True
            self.running.remove(member.request)
            self._enter(member)
        self._forked = []
        preempted, self._preempted = self._preempted, []
        for tree in preempted:
            if () in tree.members and self._members.get(tree.root.request.request_id) is tree.root:
                self._replay(tree)
        for tree in touched.values():
            if tree.controller.finish_reason is None and tree.structured:
                self._reconcile(tree)
        self._answer(results, touched.values())
        return results

    @staticmethod
    def _drained(member: Member) -> bool:
        request = member.request
        computed = request.num_computed_tokens == request.num_tokens
        return member.draining and computed and request.status == RequestStatus.RUNNING

    def _enter(self, member: Member) -> None:
        """Queue a request with all its tokens as prompt; the worker meets it anew, whatever it knew."""
        request = member.request
        request.status = RequestStatus.WAITING
        request.prompt_token_ids = list(request.all_token_ids)
        request.num_prompt_tokens = len(request.prompt_token_ids)
        request._output_token_ids.clear()
        if member.tree.seed is not None:  # the worker's new generator must not draw the same numbers again
            key = (*member.strand.key, len(member.strand.tokens))
            request.sampling_params = request.sampling_params.clone()
            request.sampling_params.seed = derive_seed(member.tree.seed, key)
        if request.num_computed_tokens:
            self._table.manager.num_cached_block.setdefault(request.request_id, 0)
        self.finished_req_ids.add(request.request_id)
        self._enqueue_waiting_request(request)

    def _park(self, member: Member) -> None:
        self.running.remove(member.request)
        member.request.status = RequestStatus.WAITING
        self.finished_req_ids.add(member.request.request_id)
        member.draining, member.parked = False, True

    def _reconcile(self, tree: RequestTree) -> None:
        """Bring what vLLM holds to what the controller wants: start branches, join closed ones."""
        for member in list(tree.members.values()):
            if not member.parked or member.strand.key not in tree.members:
                continue
            known = member.parts()
            children = known[member.part].children
            for child in children:
                if child.key not in tree.members and child.status is not Status.WAITING and self._table.free():
                    self._start(tree, child, member)
            branches = [tree.members[child.key] for child in children if child.key in tree.members]
            closed = len(branches) == len(children) and all(branch.done for branch in branches)
            if children and closed and member.part + 1 < len(known):
                self._join(member, branches, known[member.part + 1])

    # --- map ---------------------------------------------------------------------------------------------------

    def _start(self, tree: RequestTree, strand: Strand, parent: Member) -> None:
        """Make a request of a branch; its KV begins with its parent's."""
        origin = parent.request
        parameters = origin.sampling_params.clone()
        parameters.max_tokens = self.max_model_len  # the controller counts
        child = Request(
            f"{tree.root.request.request_id}/{'.'.join(map(str, strand.key))}",
            list(origin.all_token_ids),
            parameters,
            None,
            client_index=origin.client_index,
            arrival_time=origin.arrival_time,
            lora_request=origin.lora_request,
            cache_salt=origin.cache_salt,
            priority=origin.priority,
        )
        child.prefill_stats = None
        child.num_computed_tokens = origin.num_tokens
        self._table.share(origin.request_id, child.request_id, origin.num_tokens)
        member = Member(tree, strand, child)
        member.given(0)
        child._all_token_ids += member.parts()[0].tokens
        tree.members[strand.key] = self._members[child.request_id] = member
        self.requests[child.request_id] = child
        self._enter(member)
        self.multiverse_counts["forks"] += strand.key[-1] == 0

    # --- reduce ------------------------------------------------------------------------------------------------

    def _join(self, parent: Member, branches: list[Member], part: Part) -> None:
        """Hand the branches' KV to the parent and let it go on with `part`."""
        request, length = parent.request, parent.request.num_tokens
        if self._binding.dialect.join == "splice":
            ends = [(branch.request.request_id, branch.request.num_tokens) for branch in branches]
            moves = self._table.splice(request.request_id, length, ends)
            self._moves += moves.moves
            self._sources += moves.sources
            request._block_hasher = None
            request.num_computed_tokens = length + sum(end - length for _, end in ends)
            self.multiverse_counts["moved_tokens"] += len(moves.moves)
        for branch in branches:
            request._all_token_ids += branch.request._all_token_ids[length:]
            self._forget(branch)
        request._all_token_ids += part.tokens
        parent.given(parent.part + 1)
        self._enter(parent)
        self.multiverse_counts["joins"] += 1

    def _forget(self, member: Member) -> None:
        """Free a branch whose KV its parent has taken over."""
        request = member.request
        request.status = RequestStatus.FINISHED_STOPPED
        self.kv_cache_manager.free(request)
        self.requests.pop(request.request_id)
        self._members.pop(request.request_id)
        member.tree.members.pop(member.strand.key)

    # --- the client --------------------------------------------------------------------------------------------

    def _answer(self, results: dict[int, EngineCoreOutputs], touched: Iterable[RequestTree]) -> None:
        """Replace what vLLM reported per request by one output per tree, in document order."""
        own: dict[str, EngineCoreOutput] = {}
        for batch in results.values():
            kept = []
            for output in batch.outputs:
                member = self._members.get(output.request_id)
                if member is not None:
                    record_rows(member, output)
                if member is None or not member.tree.controller.root.forks:
                    kept.append(output)
                elif member.strand.parent is None:
                    own[output.request_id] = output
            batch.outputs = kept
        for tree in touched:
            root = tree.root.request
            tokens, finish = tree.stream.drain(), tree.controller.finish_reason
            if tree.controller.root.forks and (tokens or finish):
                output = own.get(root.request_id) or EngineCoreOutput(root.request_id, [])
                output.new_token_ids = tokens
                output.new_logprobs = document_logprobs(tree, tokens)
                if output.finish_reason is None and finish is not None:
                    output.finish_reason = RequestStatus.get_finished_reason(_STATUS[finish])
                batch = results.setdefault(root.client_index, EngineCoreOutputs())
                batch.outputs = [*batch.outputs, output]
            if finish is not None:
                self._dissolve(tree, _STATUS[finish])

    def _fail(self, tree: RequestTree, results: dict[int, EngineCoreOutputs]) -> None:
        """End a request that needs more memory than there is; the others go on."""
        root = tree.root.request
        tree.controller.abort()
        logger.error("request %s needs more KV blocks than the %d there are", root.request_id, self._table.total())
        reason = RequestStatus.get_finished_reason(RequestStatus.FINISHED_ERROR)
        batch = results.setdefault(root.client_index, EngineCoreOutputs())
        batch.outputs = [*batch.outputs, EngineCoreOutput(root.request_id, tree.stream.drain(), finish_reason=reason)]
        self._dissolve(tree, RequestStatus.FINISHED_ERROR)

    def _dissolve(self, tree: RequestTree, status: RequestStatus) -> None:
        """Free all that vLLM still holds for a finished tree."""
        ids = tree.ids()
        for request_id in ids:
            self._members.pop(request_id, None)
        super().finish_requests([i for i in ids if i in self.requests], status)

    def finish_requests(self, request_ids: Any, finished_status: RequestStatus) -> list[Request]:
        """An aborted request takes its branches with it."""
        if request_ids is None:
            wanted = set(self.requests)
        else:
            wanted = {request_ids} if isinstance(request_ids, str) else set(request_ids)
        for request_id in list(wanted):
            member = self._members.pop(request_id, None)
            if member is not None:
                member.tree.controller.abort()
                for other in member.tree.ids():
                    self._members.pop(other, None)
                    wanted.add(other)
        finished = super().finish_requests(wanted, finished_status)
        if not self.requests:  # no step follows in which copies and moves could be done and their blocks released
            self._table.release(self._sources)
            self._moves, self._sources = [], []
            self._table.drop_copies()
        return finished


@functools.cache
def with_multiverse(base: type) -> type:
    """The scheduler class `base` with branches."""
    return type(f"Multiverse{base.__name__}", (MultiverseScheduler, base), {"__module__": __name__})
