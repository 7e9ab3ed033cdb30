"""Requests that come: those that may hold blocks get a controller."""

from __future__ import annotations

from collections.abc import Sequence

from vllm.sampling_params import RequestOutputKind
from vllm.v1.core.sched.interface import PauseState

from multiverse.decoding.controller import Controller
from multiverse.decoding.prompt_scores import PromptScores
from multiverse.decoding.strand import Strand
from multiverse.serving.options import Options
from multiverse.structure.binding import Binding
from multiverse.structure.reasons import Reason
from multiverse_vllm.sampling import may_fork
from multiverse_vllm.scheduler.forks import Forks
from multiverse_vllm.scheduler.host import Request
from multiverse_vllm.scheduler.parameters import adapt_sampling
from multiverse_vllm.scheduler.state import State
from multiverse_vllm.scheduler.stops import wanted_stops
from multiverse_vllm.scheduler.tree import Member, Place, RequestTree


class Admission:
    """Enrols the requests of one scheduler."""

    def __init__(self, state: State, forks: Forks, options: Options, binding: Binding) -> None:
        self._host, self._trees, self._queue, self._table = state.host, state.trees, state.queue, state.table
        self._forks, self.options, self._binding = forks, options, binding

    def admit(self, request: Request) -> None:
        """Enrol a request that was just added, if blocks are possible in it."""
        is_new = self._host.requests.get(request.request_id) is request
        if not is_new:  # more input for a session, or its end
            return
        options = may_fork(self.options, request, request.sampling_params)
        if options is None or request.prompt_token_ids is None:
            return
        limits = options.limits(request.max_tokens, self._host.max_model_len)
        controller = options.controller(self._binding, limits, request.prompt_token_ids, self._refusal)
        self.enroll(request, controller, options)

    def enroll(self, request: Request, controller: Controller, options: Options) -> None:
        """Let `controller` decide about a request that was just added.

        If its prompt holds blocks, it is a tree without KV, and begins as one that was preempted does.
        """
        sampling = request.sampling_params
        tree = RequestTree(
            controller,
            options,
            sampling.output_kind is RequestOutputKind.DELTA,
            rank=self._queue.rank(request),
            arrived=request.arrival_time,
            stops=wanted_stops(sampling),
            sampling=sampling,
            block_hasher=request._block_hasher,
        )
        member = Member(tree, controller.root, request=request, place=Place.QUEUED)
        self._trees.add(member)
        tree.events += tree.events_of(controller.root, controller.begin())
        adapt_sampling(member)
        if tree.structured:
            if sampling.prompt_logprobs is not None:
                tree.scores = PromptScores(controller.prompt)
            self._trees.structured[id(tree)] = self._trees.preempted[id(tree)] = tree
            self._queue.remove(member)
            if self._host._pause_state is PauseState.UNPAUSED:
                self._forks.start_root(member)

    def _refusal(self, strand: Strand, labels: Sequence[str]) -> Reason | None:
        """A fork is refused only if the pool could never hold it; short of memory, branches wait their turn.

        Each branch needs a block for the copy of the partly filled one, and one to grow into.
        """
        needed = strand.kv_length // self._table.size + 2 * len(labels)
        return Reason.KV_CAPACITY if needed > self._table.total() else None
