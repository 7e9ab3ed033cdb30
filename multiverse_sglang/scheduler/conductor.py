"""The life of requests inside SGLang's scheduler: tokens go to controllers, what they order is done between steps.

One conductor per scheduler. It is called by the wrappers of the hook table, and has one object for each job.
"""

from __future__ import annotations

import copy
import logging
import time
from array import array
from functools import partial
from http import HTTPStatus

from sglang.srt.managers.schedule_batch import FINISH_ABORT, Req, ReqKvInfo

from multiverse.decoding.late import deciding_tokens
from multiverse.decoding.strand import Status
from multiverse.serving.admission.policies import make_policy
from multiverse.serving.integrity import IntegrityCheck
from multiverse.serving.metrics import Tally
from multiverse.serving.options import Options
from multiverse.structure.binding import bind, detect
from multiverse_sglang.channels import CONDUCTOR, MEMBER
from multiverse_sglang.host import Batch, Message, Result, Scheduler
from multiverse_sglang.refusals import refuse_unsupported
from multiverse_sglang.scheduler.admission import Admission
from multiverse_sglang.scheduler.batches import Batches
from multiverse_sglang.scheduler.books import Books
from multiverse_sglang.scheduler.clock import Clock
from multiverse_sglang.scheduler.containment import Containment
from multiverse_sglang.scheduler.deferral import sampled_in, watch
from multiverse_sglang.scheduler.drafts import Drafts
from multiverse_sglang.scheduler.forks import Forks
from multiverse_sglang.scheduler.holding import Holding
from multiverse_sglang.scheduler.life import Life
from multiverse_sglang.scheduler.memory_pressure import MemoryPressure
from multiverse_sglang.scheduler.metrics import Metrics
from multiverse_sglang.scheduler.outputs import drop_logprobs, record_host_streamed, record_row
from multiverse_sglang.scheduler.paces import Paces
from multiverse_sglang.scheduler.preemption import Preemption
from multiverse_sglang.scheduler.prefill_way import prepare_prefill
from multiverse_sglang.scheduler.prompt_logprobs import record_scores
from multiverse_sglang.scheduler.quiet import QuietRuns
from multiverse_sglang.scheduler.requests import WatchedRun, change
from multiverse_sglang.scheduler.retained import RetainedKV
from multiverse_sglang.scheduler.runs import Runs
from multiverse_sglang.scheduler.slots import SlotPool
from multiverse_sglang.scheduler.tree import Member, RequestTree
from multiverse_sglang.scheduler.trees import Trees
from multiverse_sglang.scheduler.waiting_queue import WaitingQueue
from multiverse_sglang.scheduler.weights import begin_versions, note_version

logger = logging.getLogger("sglang.multiverse")


class Conductor:
    """Forks, parks and joins the requests of one scheduler.

    Raises:
        UnsupportedHostError: if the scheduler is configured for something that blocks can't work with.
        BindingError: if the tokenizer knows the tags of no dialect.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        options = Options.from_environment()
        refuse_unsupported(scheduler, options)
        prepare_prefill(scheduler, options.prefill)
        self._scheduler = scheduler
        binding = bind(options.dialect or detect(scheduler.tokenizer), scheduler.tokenizer, eos=())  # SGLang ends it
        self._deciding = deciding_tokens(binding)
        self.tally, self.trees = Tally(), Trees()
        self.pool, self.queue = SlotPool(scheduler, self.tally), WaitingQueue(scheduler)
        self.batches = Batches(scheduler, self.trees)
        self.runs, self.retained = Runs(scheduler, self.pool, self.queue), RetainedKV(self.pool)
        self.containment = Containment(scheduler, self.trees, self.runs)
        forks = Forks(binding.dialect.join, self.pool, self.runs, self.retained, self.tally)
        self.life = Life(scheduler, self.pool, self.runs, forks, self.retained, self.containment, options.prefill)
        self.preemption = Preemption(self.trees, self.pool, self.runs, self.life, self.containment)
        self.memory = MemoryPressure(
            scheduler, self.trees, self.pool, self.queue, self.batches, self.retained, self.preemption, self.life
        )
        self.admission = Admission(
            scheduler, options, binding, self.tally, self.trees, self.pool, self.queue, self.life, self.containment
        )
        self.drafts = Drafts(scheduler, self.tally)
        self.quiet = QuietRuns(scheduler, self.trees, self.life, self._deciding, self.drafts.most)
        self.books = Books(scheduler, self.trees, self.batches, self.pool, self.retained)
        self.integrity = IntegrityCheck(options.integrity_interval, self.tally, logger)
        self._metrics: Metrics | None = None
        self._rests = False
        self.paces, self._holding = self._make_holding(options)

    def _make_holding(self, options: Options) -> tuple[Paces | None, Holding | None]:
        """Who decides which branches run in a step, by the first rank's clock if it asks for one; `None`: all do."""
        policy, scheduler, paces = make_policy(options.admission), self._scheduler, None
        if policy is None:
            return None, None
        guard = self.containment.guard
        if policy.step_time is not None:
            paces = Paces(scheduler, options, self.trees, self.batches, self.tally, policy.step_time)
            tell = partial(guard.aside, paces.begin_turn, otherwise=None)
            scheduler.request_receiver = Clock(scheduler.request_receiver, tell)
        return paces, Holding(policy, paces, self.trees, self.batches, guard)

    def start_counting(self) -> None:
        """Count from zero on, where operators see it."""
        self.tally.reset()
        if self.paces is not None:
            self.paces.forget()
        self._metrics = Metrics.of(self._scheduler)

    # --- steps ---------------------------------------------------------------------------------------------------

    def before_step(self) -> None:
        """SGLang is about to plan its next step."""
        self.containment.end_failing()
        if self.integrity.is_due():
            self.integrity.enter(self.books.problems_while_running())
        if self._holding is not None:
            self._holding.before_schedule()
        self.memory.make_room()
        self.containment.end_failing()

    def watch(self, batch: Batch, result: Result) -> None:
        """SGLang is about to hand out the tokens of `batch`: some requests may get their first tag with them."""
        if self.paces is not None:
            self.paces.note_result(batch)
        sampled, self.quiet.sampled = sampled_in(batch, result), []
        if self.trees.by_rid:
            self.containment.contain(self.quiet.begin, batch, sampled, otherwise=None)
        watch(self._deciding, batch, sampled, self.admission.enrol_late)
        if self.drafts.most > 1:
            self.drafts.note(batch, sampled)

    def process_results(self) -> None:
        """Do what the tokens of a batch decided: fork, park, join, answer."""
        self._rests = False
        if self.quiet.sampled:
            self.quiet.end()
        guard = self.containment.guard
        trees: dict[float, RequestTree] = {}
        results, self.trees.results[:] = self.trees.results[:], []
        for member in results:
            if member.run is None or not member.has_result:
                continue
            if guard.run(member.tree, self._has_strands, member, otherwise=False):
                trees[member.tree.arrived] = member.tree
        for tree in trees.values():
            if tree not in self.trees.failing:
                guard.run(tree, self.life.advance, tree, otherwise=None)
        self.containment.end_failing()
        self._publish()

    def _has_strands(self, member: Member) -> bool:
        """Note the result that came for a member, and whether its tree, which this may take apart, has strands."""
        tree, run = member.tree, member.run
        assert run is not None
        member.has_result = False
        member.end_prefill()
        if tree.is_forked:
            record_scores(member)
            record_row(member)
            stats = tree.client.time_stats
            stats.forward_entry_time = stats.forward_entry_time or run.time_stats.forward_entry_time
            tree.has_begun = True
        elif not self._take_apart(tree):
            return False
        if member.draining or member.strand.status is not Status.RUNNING:
            self.runs.end(member)
            if not member.draining:
                member.drain_started_at = time.monotonic()
        return True

    def _take_apart(self, tree: RequestTree) -> bool:
        """Split a request that just forked into the run of its root, which SGLang has, and what the client sees."""
        run, root = tree.client, tree.root
        if run.finished():
            setattr(run, MEMBER, None)
        if run.finished() or root.strand.status is Status.RUNNING:
            return False
        drop_logprobs(run)
        tree.client = client = copy.copy(run)
        client.output_ids, client.kv, client.lock = run.output_ids[:], ReqKvInfo(), None
        client.full_untruncated_fill_ids, client.grammar = array("q"), None
        setattr(client, MEMBER, None)
        change(client, Req)
        change(run, WatchedRun)
        root.tokens, root.tokens_submitted = run.origin_input_ids[:] + run.output_ids, len(run.output_ids)
        self.trees.add(tree)
        tree.stream.skip(len(run.output_ids))  # SGLang has shown them by itself
        record_host_streamed(tree)
        begin_versions(tree, run.weight_version_events)
        root.part, root.delta, tree.has_begun = len(root.parts()) - 1, 0, True
        return True

    # --- what operators ask --------------------------------------------------------------------------------------

    def abort(self, wanted: Message) -> None:
        """End the trees that an abort message of SGLang means, branches and all; forget the states it names. It may
        mean a run of a tree, one that has waited or run for too long: the whole tree is meant then."""
        self.retained.drop(None if wanted.abort_all else wanted.rid)
        status = HTTPStatus.SERVICE_UNAVAILABLE if wanted.abort_message else None
        for tree in self.trees:
            rids = [tree.client.rid, *(m.run.rid for m in tree.members.values() if m.run is not None)]
            if wanted.abort_all or tree.client.rid.startswith(wanted.rid) or wanted.rid in rids:
                reason = FINISH_ABORT(wanted.abort_message or "Aborted", status)
                self.containment.guard.run(tree, self.life.finish, tree, reason, otherwise=None)
        self.containment.end_failing()
        self._publish()

    def drop_kv(self) -> None:
        """SGLang drops its KV, or is about to: trees give up theirs, and what is retained goes."""
        self.retained.drop(None)
        self.preemption.preempt_all()

    def before_flush(self) -> None:
        """SGLang is about to flush its KV cache; it does so while requests wait if it is paused and computes none."""
        if self._scheduler._engine_paused and self._scheduler.is_fully_idle(ignore_waiting=True):
            self.drop_kv()
        self.retained.drop(None)

    def note_version(self, old_version: str) -> None:
        """The weights have changed."""
        note_version(self.trees, old_version)

    def rest(self) -> None:
        """Nothing is left to be done: nothing may be left over (I8). Looked at once per rest."""
        if not self._rests:
            self._rests = True
            self.integrity.enter(self.books.problems_at_rest())
            self._publish()

    def _publish(self) -> None:
        """Bring the metrics up to date."""
        if self._metrics is not None:
            self.containment.guard.aside(self._metrics.update, self.tally, self.trees, otherwise=None)


def conductor_of(holder: object) -> Conductor:
    """The conductor of a scheduler, by the scheduler or its radix tree."""
    found: Conductor = getattr(holder, CONDUCTOR)
    return found


def find_conductor(holder: object) -> Conductor | None:
    """The same, where it may not be there yet."""
    found: Conductor | None = getattr(holder, CONDUCTOR, None)
    return found
