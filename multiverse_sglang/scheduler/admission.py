"""A request comes: whether it can have blocks, who decides about them, and how what its prompt holds is computed.

Most get who decides when they sample their first tag.

What is wrong with one request, and what goes wrong while it is looked at, is that request's answer: HTTP 400 or 500.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from sglang.srt.managers.schedule_batch import FINISH_ABORT, Req

from multiverse.decoding.budgets import FinishReason
from multiverse.decoding.late import catch_up
from multiverse.decoding.program import ProgramPrompt
from multiverse.decoding.strand import Strand
from multiverse.errors import MultiverseError, OptionError
from multiverse.serving.metrics import Tally
from multiverse.serving.options import Options
from multiverse.serving.stops import Stops
from multiverse.serving.watching import must_be_watched
from multiverse.structure.binding import Binding
from multiverse.structure.reasons import Reason
from multiverse.wire.responses import FIELD
from multiverse_sglang.channels import DEFERRED, MEMBER
from multiverse_sglang.host import FinishReason as HostReason
from multiverse_sglang.host import Request, Scheduler
from multiverse_sglang.refusals import check_drafts, check_options, check_program, eligible, is_new
from multiverse_sglang.scheduler.containment import INTERNAL_ERROR, Containment
from multiverse_sglang.scheduler.deferral import Deferred
from multiverse_sglang.scheduler.life import Life
from multiverse_sglang.scheduler.program import Program, program_of
from multiverse_sglang.scheduler.prompt_logprobs import scores_for
from multiverse_sglang.scheduler.requests import AskedRequest, WatchedRequest, change
from multiverse_sglang.scheduler.slots import SlotPool
from multiverse_sglang.scheduler.stops import wanted_stops
from multiverse_sglang.scheduler.strict import StrictTags
from multiverse_sglang.scheduler.tokens import decide
from multiverse_sglang.scheduler.tree import Member, RequestTree
from multiverse_sglang.scheduler.trees import Trees
from multiverse_sglang.scheduler.waiting_queue import WaitingQueue

logger = logging.getLogger("sglang.multiverse")


class Admission:
    """Looks at requests when they come, and starts what blocks they hold."""

    def __init__(
        self,
        scheduler: Scheduler,
        options: Options,
        binding: Binding,
        tally: Tally,
        trees: Trees,
        pool: SlotPool,
        queue: WaitingQueue,
        life: Life,
        containment: Containment,
    ) -> None:
        self._scheduler, self.options, self.binding, self._tally = scheduler, options, binding, tally
        self._trees, self._pool, self._queue, self._life = trees, pool, queue, life
        self._guard = containment.guard
        self._arrivals = itertools.count()  # the same on every rank of a tensor-parallel host, as no clock is

    def admit(self, request: Request) -> None:
        """Give a request that was just queued its controller; one that holds blocks is taken apart at once."""
        try:
            self._enrol(request)
        except MultiverseError as error:
            self._refuse(request, FINISH_ABORT(str(error), HTTPStatus.BAD_REQUEST, "BadRequestError"))
        except Exception as error:
            logger.error("multiverse: request %s ended with an error: %r", request.rid, error, exc_info=error)
            self._refuse(request, FINISH_ABORT(INTERNAL_ERROR, HTTPStatus.INTERNAL_SERVER_ERROR))

    def _enrol(self, request: Request) -> None:
        program = program_of(request)
        if not is_new(request, 1 if program is None and not request.return_logprob else 0):
            return
        field = field_of(request)
        options = self.options.for_request(field)
        if field is not None:
            check_options(request, options)
            if not self._scheduler.spec_algorithm.is_none():
                check_drafts(options)
        if program is not None:
            check_program(request, program)
        if not eligible(request) or (program is None and not options.enabled):
            return
        if program is None and not self._must_be_watched(request, options):
            if request.sampling_params.max_new_tokens:
                self._defer(request, options, field is not None)
            return
        tree = self._make_tree(request, self._known(request, options, field is not None), program)
        controller = tree.controller
        if not tree.commit and not request.sampling_params.max_new_tokens:
            return  # scores of a causal prompt
        setattr(request, MEMBER, tree.root)
        change(request, WatchedRequest)
        if tree.commit:
            controller.end(controller.root, FinishReason.LENGTH)
        else:
            tree.publish(controller.root, controller.begin())
        if options.structure == "strict":
            request.grammar = StrictTags(tree, controller.root)
        if program is not None or tree.structured:
            self._take_apart(tree)

    def _take_apart(self, tree: RequestTree) -> None:
        """A request whose prompt holds blocks is never SGLang's own."""
        self._queue.remove(tree.client)
        setattr(tree.client, MEMBER, None)
        change(tree.client, Req)
        tree.root.run, tree.scores = None, scores_for(tree)
        self._trees.add(tree)
        self._guard.run(tree, self._life.start, tree, otherwise=None)

    # --- requests that get who decides later ---------------------------------------------------------------------

    def _must_be_watched(self, request: Request, options: Options) -> bool:
        """SGLang looks for stops itself, and keeps logprobs, until a request forks."""
        prompt = request.origin_input_ids
        return must_be_watched(options, self.binding, prompt, Stops(), streams=request.stream, logprobs=False)

    def _known(self, request: Request, options: Options, asked: bool) -> Deferred:
        arrived = next(self._arrivals)
        return Deferred(options, asked, self._rank(request), arrived, time.monotonic(), self._answer)

    def _defer(self, request: Request, options: Options, asked: bool) -> None:
        """Leave a request to SGLang until it samples a tag."""
        setattr(request, MEMBER, None)
        setattr(request, DEFERRED, self._known(request, options, asked))
        if asked:
            change(request, AskedRequest)

    def enrol_late(self, request: Request) -> None:
        """Let a deferred request be what it would be by now, had it been watched from its beginning."""
        try:
            self._make_late(request, request.output_ids)
        except Exception as error:
            logger.error("multiverse: request %s ended with an error: %r", request.rid, error, exc_info=error)
            request.to_finish = FINISH_ABORT(INTERNAL_ERROR, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _make_late(self, request: Request, said: Sequence[int]) -> Member:
        """Enrol a deferred request that has sampled `said`, no tag among it."""
        known: Deferred = request.__dict__.pop(DEFERRED)
        tree = self._make_tree(request, known, None)
        tree.controller.begin()
        tree.accepted_drafts = request.spec_num_correct_drafts
        catch_up(tree.controller, said)
        setattr(request, MEMBER, tree.root)
        change(request, WatchedRequest)
        return tree.root

    def _answer(self, request: Request, dropped_drafts: int) -> None:
        """SGLang has ended a deferred request: its client gets the record that it asked for."""
        try:
            root = self._make_late(request, request.output_ids[:-1])
            root.tree.accepted_drafts -= dropped_drafts
            decide(request, root)
        except Exception as error:
            logger.error("multiverse: request %s has no record: %r", request.rid, error, exc_info=error)
        setattr(request, MEMBER, None)

    # --- who decides ---------------------------------------------------------------------------------------------

    def _make_tree(self, request: Request, known: Deferred, program: Program | None) -> RequestTree:
        """The tree of a request: a root, and who decides about it.

        Raises:
            OptionError: if the positions of a program's prompt go beyond the context.
        """
        parameters, context, options = request.sampling_params, self._scheduler.model_config.context_len, known.options
        prompt: Any = request.origin_input_ids
        if program is not None:
            prompt = self._program_prompt(request, options, program)
        limits = options.limits(max(1, parameters.max_new_tokens), context)
        return RequestTree(
            options.controller(self.binding, limits, prompt, self._affords),
            options,
            streams=request.stream,
            stops=wanted_stops(request),
            rank=known.rank,
            arrived=known.arrived,
            created=known.created,
            tally=self._tally,
            guard=self._guard,
            results=self._trees.results,
            asked=known.asked,
            client=request,
            program=program,
        )

    def _program_prompt(self, request: Request, options: Options, program: Program) -> ProgramPrompt:
        """The prompt of a program's request, which from now on generates no more than its positions allow."""
        parameters, context = request.sampling_params, self._scheduler.model_config.context_len
        prompt = ProgramPrompt(request.origin_input_ids, program.spans, self.binding, options.separators)
        room = context - 1 - prompt.next_position  # as SGLang, which leaves the last position free
        if room < min(1, parameters.max_new_tokens):
            raise OptionError(
                f"position_ids_offset moves the end of the text to position {prompt.next_position}: there is no "
                f"room for {parameters.max_new_tokens} tokens behind it in a context of {context}"
            )
        parameters.max_new_tokens = min(parameters.max_new_tokens, room)
        return prompt

    def _rank(self, request: Request) -> int:
        """How much a request matters to the operator: the less, the more."""
        if not self._scheduler.enable_priority_scheduling:
            return 0
        return int(request.priority if self._scheduler.schedule_low_priority_values_first else -request.priority)

    def _refuse(self, request: Request, reason: HostReason) -> None:
        """Answer a request that can't be served; whatever was begun for it is not known any more."""
        self._queue.remove(request)
        setattr(request, MEMBER, None)
        request.finished_reason = reason
        self._scheduler.output_streamer.stream_output([request], request.return_logprob)

    def _affords(self, strand: Strand, labels: Sequence[object]) -> Reason | None:
        """A fork is refused only if the pool could never hold it; short of memory, branches wait their turn."""
        too_many = self._pool.min_slots(strand.kv_length, len(labels)) > self._pool.total
        return Reason.KV_CAPACITY if too_many else None


def field_of(request: Request) -> Any:
    """What a client says in the `multiverse` field of its request. Parameters that are no object are no such field."""
    found = request.sampling_params.custom_params
    return found.get(FIELD) if isinstance(found, dict) else None
