"""A request comes: whether it can have blocks, who decides about them, and how what its prompt holds is computed.

What is wrong with one request, and what goes wrong while it is looked at, is that request's answer: HTTP 400 or 500.
"""

from __future__ import annotations

import bisect
import itertools
import logging
from array import array
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from sglang.srt.managers.schedule_batch import FINISH_ABORT

from multiverse.decoding.budgets import FinishReason
from multiverse.decoding.program import ProgramPrompt
from multiverse.decoding.replay import starts
from multiverse.decoding.strand import Strand
from multiverse.errors import MultiverseError, OptionError
from multiverse.serving.metrics import Tally
from multiverse.serving.options import Options
from multiverse.structure.binding import Binding
from multiverse.structure.reasons import Reason
from multiverse.wire.responses import FIELD
from multiverse_sglang.channels import MEMBER
from multiverse_sglang.refusals import check_options, check_program, eligible, is_new
from multiverse_sglang.scheduler.memory_pressure import MemoryPressure
from multiverse_sglang.scheduler.prefix_cache import LayoutCache
from multiverse_sglang.scheduler.prompt_logprobs import scores_for
from multiverse_sglang.scheduler.retained import program_of
from multiverse_sglang.scheduler.single_pass import SinglePass
from multiverse_sglang.scheduler.stops import wanted_stops
from multiverse_sglang.scheduler.strict import StrictTags
from multiverse_sglang.scheduler.tree import Program, RequestTree

logger = logging.getLogger("sglang.multiverse")
INTERNAL_ERROR = "The request ended with an internal error of multiverse; the server's log has it."


class Admission(MemoryPressure):
    """The part of the conductor that looks at requests when they come and begins with what blocks they hold."""

    options: Options
    binding: Binding
    tally: Tally
    cache: LayoutCache
    single_pass: SinglePass
    advance: Callable[[RequestTree], None]
    _arrivals: Iterator[int]

    def admit(self, request: Any) -> None:
        """Give a request that was just queued its controller; one that holds blocks is taken apart at once."""
        try:
            self._enrol(request)
        except MultiverseError as error:
            self._refuse(request, FINISH_ABORT(str(error), HTTPStatus.BAD_REQUEST, "BadRequestError"))
        except Exception as error:
            logger.error("multiverse: request %s ended with an error: %r", request.rid, error, exc_info=error)
            self._refuse(request, FINISH_ABORT(INTERNAL_ERROR, HTTPStatus.INTERNAL_SERVER_ERROR))

    def _enrol(self, request: Any) -> None:
        program = program_of(request)
        if not is_new(request, 1 if program is None and not request.return_logprob else 0):
            return
        given = given_options(request)
        options = self.options.for_request(given)
        if given is not None:
            check_options(request, options)
        if program is not None:
            check_program(request, program)
        if not eligible(request) or (program is None and not options.enabled):
            return
        tree = self._make_tree(request, options, given is not None, program)
        controller = tree.controller
        if not tree.commit and not request.sampling_params.max_new_tokens:
            return  # scores of a causal prompt
        setattr(request, MEMBER, tree.root)
        if tree.commit:
            controller.end(controller.root, FinishReason.LENGTH)
        else:
            tree.tell(controller.root, controller.begin())
        if options.structure == "strict":
            request.grammar = StrictTags(tree, controller.root)
        if program is not None or tree.structured:
            self.queue.remove(request)
            setattr(request, MEMBER, None)
            tree.open, tree.root.run, tree.scores = True, None, scores_for(tree)
            self.trees[request.rid] = tree
            self.guard.run(tree, self.begin, tree, True, otherwise=None)

    def _make_tree(self, request: Any, options: Options, asked: bool, program: Program | None) -> RequestTree:
        """The tree of a request: a root, and who decides about it.

        Raises:
            OptionError: if the positions of a program's prompt go beyond the context.
        """
        parameters, context = request.sampling_params, self.scheduler.model_config.context_len
        prompt: Any = request.origin_input_ids
        if program is not None:
            prompt = ProgramPrompt(prompt, program.spans, self.binding, options.separators)
            room = context - 1 - prompt.next_position  # as SGLang, which leaves the last position free
            if room < min(1, parameters.max_new_tokens):
                raise OptionError(
                    f"position_ids_offset moves the end of the text to position {prompt.next_position}: there is no "
                    f"room for {parameters.max_new_tokens} tokens behind it in a context of {context}"
                )
            parameters.max_new_tokens = min(parameters.max_new_tokens, room)
        limits = options.limits(max(1, parameters.max_new_tokens), context)
        return RequestTree(
            options.controller(self.binding, limits, prompt, self._affords),
            options,
            streams=request.stream,
            stops=wanted_stops(request),
            rank=self._rank(request),
            arrived=next(self._arrivals),
            tally=self.tally,
            guard=self.guard,
            asked=asked,
            client=request,
            program=program,
        )

    def _rank(self, request: Any) -> int:
        """How much a request matters to the operator: the less, the more."""
        if not self.scheduler.enable_priority_scheduling:
            return 0
        return int(request.priority if self.scheduler.schedule_low_priority_values_first else -request.priority)

    def _refuse(self, request: Any, reason: Any) -> None:
        """Answer a request that can't be served; whatever was begun for it is not known any more."""
        self.queue.remove(request)
        setattr(request, MEMBER, None)
        request.finished_reason = reason
        self.scheduler.output_streamer.stream_output([request], request.return_logprob)

    def _affords(self, strand: Strand, labels: Any) -> Reason | None:
        """A fork is refused only if the pool could never hold it; short of memory, branches wait their turn."""
        return Reason.KV_CAPACITY if self.pool.least(strand.kv_length, len(labels)) > self.pool.total else None

    def begin(self, tree: RequestTree, look: bool = True) -> None:
        """Queue the root: with all that it was given in one go or, if that can't be, with its first part.

        If it may `look`, it begins behind what the radix tree has of its blocks.
        """
        root, prompt = tree.root, tree.controller.prompt
        seams = starts(prompt.strand)
        root.held = self.states.take(tree)
        if root.held is None and look and (len(seams) > 1 or tree.program is not None):
            root.held = self.cache.find(tree)
        if tree.program is None:
            root.passage = self.single_pass.begin(tree.controller, root.computed)
        if root.passage is not None:
            part, root.held = len(root.parts()) - 1, root.held or self.pool.nothing()
            root.tokens = array("q", root.passage.ids)
        else:
            part = 0 if root.held is None else bisect.bisect(seams, root.computed) - 1
            root.tokens = array("q", [*prompt.ids[: seams[part]], *root.parts()[part].tokens])
        if root.held is not None and part == 0 and tree.program is None:
            self.runs.release(root)  # it ends within the first block: SGLang finds it by itself
        root.advance_to(part)
        if root.held is not None:
            self.pool.cut(root.held, len(root.tokens) - (not root.draining))
            tree.client.cached_tokens = max(tree.client.cached_tokens, root.computed)
            self.tally.count("cached_tokens", root.computed)
        if root.computed == len(root.tokens):
            self.advance(tree)
        else:
            self.runs.queue(root)


def arrivals() -> Iterator[int]:
    """Order of arrival: the same on every rank of a tensor-parallel host, as no clock is."""
    return itertools.count()


def given_options(request: Any) -> Any:
    """What a client says in the `multiverse` field of its request. Parameters that are no object are no such field."""
    found = request.sampling_params.custom_params
    return found.get(FIELD) if isinstance(found, dict) else None
