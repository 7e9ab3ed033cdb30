"""The life of requests inside SGLang's scheduler: tokens go to controllers, what they order is done between steps.

One conductor per scheduler. It is called by the wrappers of `hooks.py` and touches SGLang through `runs`, `slots` and
`outputs`; all decisions are the core's, and branches are started and joined by `forks`.
"""

from __future__ import annotations

import copy
import logging
import time
from array import array
from http import HTTPStatus
from typing import Any

from sglang.srt.managers.schedule_batch import FINISH_ABORT, FINISH_LENGTH, ReqKvInfo
from sglang.srt.runtime_context import get_serving

from multiverse.decoding.strand import Status
from multiverse.serving.containment import Guard
from multiverse.serving.integrity import IntegrityCheck
from multiverse.serving.metrics import Tally
from multiverse.serving.options import Options
from multiverse.structure.binding import bind, detect
from multiverse_sglang.channels import MEMBER
from multiverse_sglang.refusals import refuse_unsupported
from multiverse_sglang.scheduler.admission import arrivals
from multiverse_sglang.scheduler.books import problems_while_running
from multiverse_sglang.scheduler.forks import Forks
from multiverse_sglang.scheduler.metrics import Metrics
from multiverse_sglang.scheduler.outputs import record_plain, record_row, show
from multiverse_sglang.scheduler.prefix_cache import LayoutCache
from multiverse_sglang.scheduler.prompt_logprobs import record_scores
from multiverse_sglang.scheduler.retained import KeptStates
from multiverse_sglang.scheduler.runs import Runs
from multiverse_sglang.scheduler.single_pass import SinglePass
from multiverse_sglang.scheduler.slots import SlotPool
from multiverse_sglang.scheduler.tree import Member, RequestTree, member_of
from multiverse_sglang.scheduler.upkeep import Upkeep
from multiverse_sglang.scheduler.waiting_queue import WaitingQueue
from multiverse_sglang.scheduler.weights import begin_versions, show_versions

logger = logging.getLogger("sglang.multiverse")


class Conductor(Upkeep):
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
        self.queue = WaitingQueue(scheduler)
        self.runs = Runs(scheduler, self.pool)
        self.single_pass = SinglePass(scheduler)
        self.cache = LayoutCache(scheduler.tree_cache, self.pool.page)
        self.states = KeptStates(self.pool)
        self.forks = Forks(self.binding.dialect.join, self.pool, self.runs, self.states, self.tally)
        self.trees: dict[str, RequestTree] = {}
        self.exiles: list[RequestTree] = []
        self.retracted: list[RequestTree] = []
        self.failing: list[RequestTree] = []
        self.guard: Guard[RequestTree] = Guard(self.failing.append, lambda tree: str(tree.client.rid), logger)
        self.integrity = IntegrityCheck(self.options.integrity_interval, self.tally, logger)
        self.metrics = Metrics.of(scheduler)
        self._arrivals = arrivals()
        self._rests = False

    # --- steps ------------------------------------------------------------------------------------------------

    def before_step(self) -> None:
        """SGLang is about to plan its next step."""
        self.end_failing()
        if self.integrity.is_due():
            self.integrity.enter(problems_while_running(self))
        self.make_room()
        self.end_failing()

    # --- after a step ------------------------------------------------------------------------------------------

    def settle(self, batch: Any) -> None:
        """Do what the tokens of `batch` decided: fork, park, join, answer."""
        self._rests = False
        trees: dict[float, RequestTree] = {}
        for request in batch.reqs:
            member = member_of(request)
            if member is None or member.run is not request or not member.arrived:
                continue
            if self.guard.run(member.tree, self._has_strands, member, otherwise=False):
                trees[member.tree.arrived] = member.tree
        for tree in trees.values():
            if tree not in self.failing:
                self.guard.run(tree, self.advance, tree, otherwise=None)
        self.end_failing()
        self.publish()

    def _has_strands(self, member: Member) -> bool:
        """Note the result that came for a member, and whether its tree, which this may open, has strands to see to."""
        tree = member.tree
        member.arrived = False
        member.end_passage()
        if tree.open:
            record_scores(member)
            record_row(member)
            stats = tree.client.time_stats
            stats.forward_entry_time = stats.forward_entry_time or member.run.time_stats.forward_entry_time
            tree.has_begun = True
        elif not self._open(tree):
            return False
        if member.draining or member.strand.status is not Status.RUNNING:
            self.runs.end(member)
            if not member.draining:
                member.drain_started_at = time.monotonic()
        return True

    def _open(self, tree: RequestTree) -> bool:
        """Take a request apart if it just forked: from now on SGLang's request is only what the client sees."""
        run, root = tree.client, tree.root
        if run.finished():
            setattr(run, MEMBER, None)
            return False
        if root.strand.status is Status.RUNNING:
            return False
        tree.client = client = copy.copy(run)
        client.output_ids, client.kv, client.lock = run.output_ids[:], ReqKvInfo(), None
        client.full_untruncated_fill_ids = array("q")
        client.grammar = None
        setattr(client, MEMBER, None)
        root.tokens, root.tokens_submitted = run.origin_input_ids[:] + run.output_ids, len(run.output_ids)
        tree.open, self.trees[run.rid] = True, tree
        tree.stream.skip(len(run.output_ids))  # SGLang has shown them by itself
        record_plain(tree)
        tree.has_begun = True
        begin_versions(tree, run.weight_version_events)
        root.part, root.delta = len(root.parts()) - 1, 0
        return True

    def advance(self, tree: RequestTree) -> None:
        """Start and join what can be, and show the client what is new."""
        if tree.commit:
            self.forks.reconcile(tree)
            if tree.computed:
                self.finish(tree, FINISH_LENGTH(0))
        elif tree.controller.finish_reason is None:
            self.forks.reconcile(tree)
            self._show(tree)
        else:
            self.finish(tree, tree.reason or FINISH_LENGTH(tree.controller.ledger.used))

    def _show(self, tree: RequestTree) -> None:
        show_versions(tree, get_serving().weight_version)
        show(self.scheduler, tree)

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
        self.forget(tree)
        tree.client.finished_reason = reason
        tree.client.time_stats.set_completion_time()
        self._show(tree)
        tree.ended = True

    def abort(self, wanted: Any) -> None:
        """End the trees that an abort message of SGLang means, branches and all; forget the states it names.

        SGLang may mean a run of a tree: one that has waited or run for too long. That is then said of the whole tree.
        """
        self.states.drop(None if wanted.abort_all else wanted.rid)
        status = HTTPStatus.SERVICE_UNAVAILABLE if wanted.abort_message else None
        for tree in list(self.trees.values()):
            rids = [tree.client.rid, *(m.run.rid for m in tree.members.values() if m.run is not None)]
            if wanted.abort_all or tree.client.rid.startswith(wanted.rid) or wanted.rid in rids:
                reason = FINISH_ABORT(wanted.abort_message or "Aborted", status)
                self.guard.run(tree, self.finish, tree, reason, otherwise=None)
        self.end_failing()
        self.publish()
