"""What is done about trees around each step of vLLM's scheduler: before and after it plans one, when one is over."""

from __future__ import annotations

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import RequestStatus

from multiverse.serving.pressure import senior_first
from multiverse_vllm.channels import PLAN, SCORES
from multiverse_vllm.plan import StepPlan
from multiverse_vllm.scheduler.answers import Answers, Results
from multiverse_vllm.scheduler.demand import Demand
from multiverse_vllm.scheduler.failures import Failures
from multiverse_vllm.scheduler.forks import Forks
from multiverse_vllm.scheduler.holding import Holding
from multiverse_vllm.scheduler.memory import MemoryPressure
from multiverse_vllm.scheduler.prompt_logprobs import scoring
from multiverse_vllm.scheduler.state import State
from multiverse_vllm.scheduler.tokens import Tokens
from multiverse_vllm.scheduler.tree import Head, Member


class Steps:
    """The order in which the parts of the scheduler have their say."""

    def __init__(
        self,
        state: State,
        demand: Demand,
        forks: Forks,
        memory: MemoryPressure,
        tokens: Tokens,
        answers: Answers,
        failures: Failures,
        holding: Holding | None,
    ) -> None:
        self._trees, self._table, self._demand, self._forks = state.trees, state.table, demand, forks
        self._memory, self._tokens, self._answers, self._failures = memory, tokens, answers, failures
        self._holding = holding

    def before_schedule(self, begins: bool) -> None:
        """Start and join what can be, senior trees first; if memory is short, let it be theirs.

        Args:
            begins: whether trees without KV may begin, or begin again.
        """
        trees, ample = self._trees, self._demand.is_ample()
        if not ample or trees.changed or trees.preempted or trees.failed or self._memory.partly_preempted:
            self._rearrange(begins, ample)
        if self._holding is not None and trees.structured:
            trees.guard.aside(self._holding.before_schedule, otherwise=None)

    def _rearrange(self, begins: bool, ample: bool) -> None:
        """Something happened since the last step, or memory is not `ample`."""
        self._failures.end_failed()
        self._memory.finish_preemptions()
        if not ample:
            self._memory.make_room()
            self._failures.end_failed()
        if self._trees.preempted and begins:
            self._memory.readmit()
        for tree in senior_first(self._trees.take_changed()):
            if self._trees.is_alive(tree):
                self._trees.attempt(self._forks.reconcile, tree)
        self._failures.end_failed()
        if not ample:
            self._memory.sort_queues()

    def after_schedule(self, output: SchedulerOutput) -> None:
        """Send the workers what they have to do beside vLLM's step; park strands that are complete with it."""
        plan = StepPlan(self._table.take_moves())
        for tree in self._trees.structured.values():
            followed = tree.followed
            if followed is None:
                followed = self._trees.guard.run(tree.root.request, tree.survey, otherwise=list[Member]())
            if tree.deltas:
                plan.deltas |= tree.deltas
            for member in followed:
                if scheduled := output.num_scheduled_tokens.get(member.request.request_id):
                    self._trees.attempt(self._follow, member, scheduled, plan)
        for new in output.scheduled_new_reqs if self._trees.members else ():
            found = self._trees.members.get(new.req_id)
            if found is not None and found.request.num_prompt_tokens < len(new.prompt_token_ids):
                plan.prompts[new.req_id] = found.request.num_prompt_tokens
        if plan:
            setattr(output, PLAN, plan)

    def _follow(self, member: Member, scheduled: int, plan: StepPlan) -> None:
        """Plan for a strand of which tokens were `scheduled`; park it if nothing is sampled behind them."""
        request = member.request
        start = request.num_computed_tokens - scheduled
        end = min(request.num_computed_tokens, request.num_tokens)  # without drafts, nor what stands in for them
        if member.head is not None:
            self._follow_head(member, member.head, start, end, plan)
        if asked := scoring(member, start, end):
            plan.scorings[request.request_id] = asked
        if member.draining and end == request.num_tokens:
            request.num_computed_tokens = end
            self._forks.park(member)  # steps run in order: what follows may count on its KV

    def _follow_head(self, member: Member, head: Head, start: int, end: int, plan: StepPlan) -> None:
        """Plan the positions of what a branch computes of its parent's tokens, and forget them with the last."""
        plan.heads[member.request.request_id] = min(head.end, end) - start, head.delta
        if head.end <= end:
            member.head = None
            member.tree.disturb()

    def take_scores(self, output: SchedulerOutput, found: ModelRunnerOutput) -> None:
        """Of a step that is over, before vLLM looks at its results."""
        plan: StepPlan | None = getattr(output, PLAN, None)
        if plan is not None and plan.scorings:
            self._answers.take_scores(plan.scorings, getattr(found, SCORES))

    def process_results(self, results: Results) -> bool:
        """A step is over, and its tokens are accepted: do what they decided, and answer.

        Returns:
            whether there was anybody to do it for.
        """
        if not self._trees.members and not self._trees.failed and not self._failures.unreported:
            return False
        own = self._answers.collect(results)
        tokens, failures = self._tokens, self._failures
        if tokens.closing or tokens.to_answer or self._memory.partly_preempted:
            self._act(own, results)
        if self._trees.failed or failures.unreported:
            failures.end_failed()
            failures.report(results)
        return True

    def _act(self, own: dict[str, EngineCoreOutput], results: Results) -> None:
        """Do what was decided, and answer with it; `own` are the outputs of roots that wait for that."""
        self._memory.finish_preemptions()
        for member in self._tokens.take_closing():
            if id(member.tree) not in self._trees.preempted and self._trees.is_alive(member.tree):
                self._trees.attempt(self._close, member)
        self._answers.answer(own, results)

    def _close(self, member: Member) -> None:
        if member.request.status == RequestStatus.RUNNING:
            self._forks.start_draining(member)
        else:  # preempted while the tag was on its way
            self._memory.preempt(member.tree)
