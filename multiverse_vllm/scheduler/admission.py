"""Requests that come: those that may hold blocks get a controller, most of them when they sample their first tag."""

from __future__ import annotations

import time
from collections.abc import Sequence

from vllm.sampling_params import RequestOutputKind
from vllm.v1.core.sched.interface import PauseState

from multiverse.decoding.controller import Controller
from multiverse.decoding.late import catch_up
from multiverse.decoding.prompt_scores import PromptScores
from multiverse.decoding.strand import Strand
from multiverse.serving.options import Options
from multiverse.serving.watching import must_be_watched
from multiverse.structure.binding import Binding
from multiverse.structure.reasons import Reason
from multiverse_vllm.channels import OPTIONS
from multiverse_vllm.sampling import may_fork
from multiverse_vllm.scheduler.forks import Forks
from multiverse_vllm.scheduler.host import Request
from multiverse_vllm.scheduler.parameters import adapt_sampling
from multiverse_vllm.scheduler.state import State
from multiverse_vllm.scheduler.stops import wanted_stops
from multiverse_vllm.scheduler.tree import Member, Place, RequestTree
from multiverse_vllm.scheduler.trees import Deferred


class Admission:
    """Enrols the requests of one scheduler."""

    def __init__(self, state: State, forks: Forks, options: Options, binding: Binding) -> None:
        self._host, self._trees, self._queue, self._table = state.host, state.trees, state.queue, state.table
        self._forks, self.options, self._binding = forks, options, binding

    def admit(self, request: Request) -> None:
        """Enrol a request that was just added, if blocks are possible in it; now, or when it samples a tag."""
        is_new = self._host.requests.get(request.request_id) is request
        if not is_new:  # more input for a session, or its end
            return
        options = may_fork(self.options, request, request.sampling_params)
        if options is None or request.prompt_token_ids is None:
            return
        sampling = request.sampling_params
        watched = must_be_watched(
            options,
            self._binding,
            request.prompt_token_ids,
            wanted_stops(sampling),
            streams=_streams(request),
            logprobs=sampling.num_logprobs is not None,
        )
        if watched:
            self.enroll(request, self._controller(request, options), options)
        else:
            asked = OPTIONS in (sampling.extra_args or {})
            self._trees.deferred[request.request_id] = Deferred(request, options, time.monotonic(), asked)

    def _controller(self, request: Request, options: Options) -> Controller:
        limits = options.limits(request.max_tokens, self._host.max_model_len)
        return options.controller(self._binding, limits, request.prompt_token_ids or (), self._refusal)

    def enroll(self, request: Request, controller: Controller, options: Options) -> None:
        """Let `controller` decide about a request that was just added.

        If its prompt holds blocks, it is a tree without KV, and begins as one that was preempted does.
        """
        member = self._member(request, controller, options, time.monotonic())
        tree, sampling = member.tree, request.sampling_params
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

    def enroll_late(self, deferred: Deferred) -> None:
        """Let a request that vLLM has served by itself be a tree from now on, and as if from its beginning."""
        member = self.make_late(deferred, deferred.request._output_token_ids)
        self._trees.add(member)

    def make_late(self, deferred: Deferred, said: Sequence[int]) -> Member:
        """What a request would be by now, had it been enrolled when it came: it has sampled `said`, no tag among it."""
        request, options = deferred.request, deferred.options
        controller = self._controller(request, options)
        member = self._member(request, controller, options, deferred.created)
        member.tree.accepted_drafts = deferred.accepted_drafts
        controller.begin()
        catch_up(controller, said)
        return member

    def _member(self, request: Request, controller: Controller, options: Options, created: float) -> Member:
        """The root of a tree that the register doesn't know yet."""
        sampling = request.sampling_params
        tree = RequestTree(
            controller,
            options,
            _streams(request),
            rank=self._queue.rank(request),
            arrived=request.arrival_time,
            created=created,
            stops=wanted_stops(sampling),
            sampling=sampling,
            block_hasher=request._block_hasher,
        )
        return Member(tree, controller.root, request=request, place=Place.QUEUED)

    def _refusal(self, strand: Strand, labels: Sequence[str]) -> Reason | None:
        """A fork is refused only if the pool could never hold it; short of memory, branches wait their turn.

        Each branch needs a block for the copy of the partly filled one, and one to grow into.
        """
        needed = strand.kv_length // self._table.size + 2 * len(labels)
        return Reason.KV_CAPACITY if needed > self._table.total() else None


def _streams(request: Request) -> bool:
    return bool(request.sampling_params.output_kind is RequestOutputKind.DELTA)
