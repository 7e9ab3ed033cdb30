"""The life of requests inside SGLang's scheduler: tokens go to controllers, what they order is done between steps.

One conductor per scheduler. It is called by the wrappers of `hooks.py` and touches SGLang through `runs`, `slots` and
`outputs`; all decisions are the core's, and branches are started and joined by `forks`.
"""

from __future__ import annotations

import bisect
import copy
import itertools
import logging
import time
from array import array
from http import HTTPStatus
from typing import Any

from sglang.srt.managers.schedule_batch import FINISH_ABORT, FINISH_LENGTH, ReqKvInfo

from multiverse.binding import bind, detect
from multiverse.budgets import FinishReason, Reason
from multiverse.errors import MultiverseError
from multiverse.metrics import Tally
from multiverse.options import Options
from multiverse.program import ProgramPrompt
from multiverse.replay import starts
from multiverse.responses import FIELD
from multiverse.strand import Status, Strand
from multiverse_sglang.forks import Forks
from multiverse_sglang.kept import KeptStates, program_of
from multiverse_sglang.memory import MemoryPressure
from multiverse_sglang.metrics import Metrics
from multiverse_sglang.outputs import record_row, show
from multiverse_sglang.prefix_cache import LayoutCache
from multiverse_sglang.refusals import check_options, check_program, eligible, is_new, refuse_unsupported
from multiverse_sglang.runs import ATTRIBUTE, Runs
from multiverse_sglang.single_pass import SinglePass
from multiverse_sglang.slots import SlotPool
from multiverse_sglang.strict import StrictTags
from multiverse_sglang.tree import Member, RequestTree

logger = logging.getLogger("sglang.multiverse")


class Conductor(MemoryPressure):
    """Forks, parks and joins the requests of one scheduler.

    Raises:
        UnsupportedHostError: if the scheduler is configured for something that blocks can't work with.
        BindingError: if the tokenizer knows the tags of no dialect.
    """

    def __init__(self, scheduler: Any) -> None:
        self.options = Options.from_environment()
        refuse_unsupported(scheduler, self.options)
        self.scheduler = scheduler
        dialect = self.options.dialect or detect(scheduler.tokenizer)
        self.binding = bind(dialect, scheduler.tokenizer, eos=())  # SGLang decides what ends a sequence
        self.tally = Tally()
        self.pool = SlotPool(scheduler, self.tally)
        self.runs = Runs(scheduler, self.pool)
        self.single_pass = SinglePass(scheduler)
        self.cache = LayoutCache(scheduler.tree_cache, self.pool.page)
        self.states = KeptStates(self.pool)
        self.forks = Forks(self.binding.dialect.join, self.pool, self.runs, self.states, self.tally)
        self.trees: dict[str, RequestTree] = {}
        self.exiles: list[RequestTree] = []
        self.retracted: list[RequestTree] = []
        self.metrics = Metrics.of(scheduler)
        self._ages = itertools.count()

    # --- a request comes ---------------------------------------------------------------------------------------

    def admit(self, request: Any) -> None:
        """Give a request that was just queued its controller; one that holds blocks is taken apart at once."""
        program = program_of(request)
        if not is_new(request, 1 if program is None else 0):
            return
        try:
            given = (request.sampling_params.custom_params or {}).get(FIELD)
            options = self.options.for_request(given)
            limits = options.limits(
                max(1, request.sampling_params.max_new_tokens), self.scheduler.model_config.context_len
            )
            if given is not None:
                check_options(request, options)
            if program is not None:
                check_program(request, program)
        except MultiverseError as error:
            self._refuse(request, str(error))
            return
        if not eligible(request) or (program is None and not options.enabled):
            return
        prompt: Any = request.origin_input_ids
        if program is not None:
            prompt = ProgramPrompt(prompt, program.spans, self.binding, options.separators)
        controller = options.controller(self.binding, limits, prompt, self._affords)
        tree = RequestTree(
            controller,
            options,
            streams=request.stream,
            tally=self.tally,
            asked=given is not None,
            age=next(self._ages),
            client=request,
            program=program,
        )
        setattr(request, ATTRIBUTE, tree.root)
        if tree.commit:
            controller.end(controller.root, FinishReason.LENGTH)
        else:
            tree.tell(controller.root, controller.begin())
        if options.structure == "strict":
            request.grammar = StrictTags(controller, controller.root)
        if program is not None or tree.structured:
            self.scheduler.waiting_queue.remove(request)
            setattr(request, ATTRIBUTE, None)
            tree.open, tree.root.run = True, None
            self.trees[request.rid] = tree
            self.begin(tree)

    def _refuse(self, request: Any, message: str) -> None:
        """Answer a request whose options are wrong, as SGLang does: an HTTP 400."""
        self.scheduler.waiting_queue.remove(request)
        request.finished_reason = FINISH_ABORT(message, HTTPStatus.BAD_REQUEST, "BadRequestError")
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
        found = self.states.take(tree)
        if found is None and look and (len(seams) > 1 or tree.program is not None):
            found = self.cache.find(tree)
        if tree.program is None:
            root.passage = self.single_pass.begin(tree.controller, 0 if found is None else len(found.slots))
        if root.passage is not None:
            part, found = len(root.parts()) - 1, found or self.pool.nothing()
            root.tokens = array("q", root.passage.ids)
        else:
            part = 0 if found is None else bisect.bisect(seams, len(found.slots)) - 1
            root.tokens = array("q", [*prompt.ids[: seams[part]], *root.parts()[part].tokens])
        if found is not None and part == 0 and tree.program is None:
            self.pool.release(found)  # it ends within the first block: SGLang finds it by itself
            found = None
        root.given(part)
        if found is not None:
            self.pool.cut(found, len(root.tokens) - (not root.draining))
            root.held = found
            tree.client.cached_tokens = max(tree.client.cached_tokens, root.computed)
            self.tally.count("cached_tokens", root.computed)
        if root.computed == len(root.tokens):
            self._progress(tree)
        else:
            self.runs.queue(root)

    # --- after a step ------------------------------------------------------------------------------------------

    def settle(self, batch: Any) -> None:
        """Do what the tokens of `batch` decided: fork, park, join, answer."""
        trees: dict[int, RequestTree] = {}
        for request in batch.reqs:
            member: Member | None = getattr(request, ATTRIBUTE, None)
            if member is None or member.run is not request or not member.arrived:
                continue
            tree = member.tree
            member.arrived = False
            member.end_passage()
            if tree.open:
                record_row(member)
            elif not self._open(tree):
                continue
            trees[tree.age] = tree
            if member.draining or member.strand.status is not Status.RUNNING:
                self.runs.end(member)
                if not member.draining:
                    member.turned_at = time.monotonic()
        for tree in trees.values():
            self._progress(tree)
        if self.metrics is not None:
            self.metrics.update(self.tally, self.trees.values())

    def _open(self, tree: RequestTree) -> bool:
        """Take a request apart if it just forked: from now on SGLang's request is only what the client sees."""
        run, root = tree.client, tree.root
        if run.finished():
            setattr(run, ATTRIBUTE, None)
            return False
        if root.strand.status is Status.RUNNING:
            return False
        tree.client = client = copy.copy(run)
        client.output_ids, client.kv, client.lock = run.output_ids[:], ReqKvInfo(), None
        client.full_untruncated_fill_ids = array("q")
        client.grammar = None
        setattr(client, ATTRIBUTE, None)
        root.tokens, root.written = run.origin_input_ids[:] + run.output_ids, len(run.output_ids)
        tree.open, tree.plain, self.trees[run.rid] = True, len(run.output_ids), tree
        root.part, root.delta = len(root.parts()) - 1, 0
        return True

    def _progress(self, tree: RequestTree) -> None:
        """Start and join what can be, and show the client what is new."""
        if tree.commit:
            self.forks.reconcile(tree)
            if tree.computed:
                self.finish(tree, FINISH_LENGTH(0))
        elif tree.controller.finish_reason is None:
            self.forks.reconcile(tree)
            show(self.scheduler, tree)
        else:
            self.finish(tree, tree.reason or FINISH_LENGTH(tree.controller.ledger.used))

    # --- the end -----------------------------------------------------------------------------------------------

    def finish(self, tree: RequestTree, reason: Any) -> None:
        """Answer the client for the last time and give back everything."""
        tree.abort()  # nothing if it ended by itself
        root = tree.root
        if root.run is not None:
            self.runs.end(root)
        if root.held is not None and not isinstance(reason, FINISH_ABORT):
            program = tree.program
            if program is not None and (program.shared is not None or not self.cache.suffices(tree, root.held)):
                self.states.keep(tree)
            else:
                self.cache.insert(tree, root.held)
        for member in reversed(list(tree.members.values())):
            self.runs.release(member)
        tree.members.clear()
        self.trees.pop(tree.client.rid, None)
        if tree in self.exiles:
            self.exiles.remove(tree)
        tree.client.finished_reason = reason
        tree.client.time_stats.set_completion_time()
        show(self.scheduler, tree)

    def abort(self, wanted: Any) -> None:
        """End the trees that an abort message of SGLang means, branches and all; forget the states it names."""
        self.states.drop(None if wanted.abort_all else wanted.rid)
        for tree in list(self.trees.values()):
            rids = [tree.client.rid, *(m.run.rid for m in tree.members.values() if m.run is not None)]
            if wanted.abort_all or tree.client.rid.startswith(wanted.rid) or wanted.rid in rids:
                message = wanted.abort_message or "Aborted"
                self.finish(tree, FINISH_ABORT(message))

    def replay(self, tree: RequestTree) -> None:
        """Give up all KV of a tree; it is computed again, exactly, when there is room."""
        root = tree.root
        tree.given_up = sum(self.runs.release(member) for member in reversed(list(tree.members.values())))
        tree.recomputed += tree.given_up
        tree.members, root.turned_at = {(): root}, None
        self.tally.count("replays")
        self.exiles.append(tree)

    def held_tokens(self) -> int:
        """Slots that strands hold outside of SGLang's batches, for its leak checks."""
        members = [m for tree in self.trees.values() for m in tree.members.values()]
        idle = [m.held for m in members if m.held is not None and (m.run is None or not m.run.kv.holds_kv)]
        return sum(map(self.pool.owned, idle))
