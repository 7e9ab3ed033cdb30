"""One chain through all stages: ask, check, ask again with the reasons, and in the end an `Outcome`.

Nothing here is random and nothing is kept in memory between requests that the store could not give back, so a chain
that is begun again after a kill takes the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from multiverse.curator import prompting
from multiverse.curator.artefacts import Artefact, Grouping, Kind, MapReduce, Plan, Refill, SummaryTree
from multiverse.curator.chains import Chain
from multiverse.curator.checks.answer import Agreement, check_answer, compare_answers, compare_with
from multiverse.curator.checks.content import edit_ratio
from multiverse.curator.checks.grammar import check_grammar, foreign_tags, plain
from multiverse.curator.config import Config
from multiverse.curator.likelihood import LikelihoodTest
from multiverse.curator.outcome import Attempt, Outcome, accepted, rejected
from multiverse.curator.plan import Site, sites
from multiverse.curator.replies import ReplyError, decode
from multiverse.curator.stages import (
    GroupSteps,
    Judge,
    Reduce,
    RefillSteps,
    Restructure,
    Stage,
    Summary,
    edited,
)
from multiverse.curator.writer import Writer
from multiverse.harness.endpoint import Client, RefusedError
from multiverse.structure.dialects import registry

Output = TypeVar("Output", bound=Artefact)


class GivenUp(Exception):  # noqa: N818  # no error: a round ended without a result
    """A round ended: the stage that failed, and why."""

    def __init__(self, stage: str, reasons: Sequence[str]) -> None:
        super().__init__(f"{stage}: {'; '.join(reasons)}")
        self.stage, self.reasons = stage, list(reasons)


@dataclass
class Round:
    """One passage through the stages; `artefacts` fills up on the way."""

    chain: Chain
    number: int
    note: str
    attempts: list[Attempt]
    artefacts: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)


class Curator:
    """Takes chains through the stages.

    Args:
        config: its dialect, limits, models and tries are used.
        client: answers the requests.
        likelihood: the numeric test, if there is one.
    """

    def __init__(self, config: Config, client: Client, likelihood: LikelihoodTest | None = None) -> None:
        self.config, self.client, self.likelihood = config, client, likelihood
        self.dialect = registry.get(config.dialect)
        self.max_depth = config.max_depth if self.dialect.nesting else 1

    async def curate(self, chain: Chain) -> Outcome:
        """What comes of `chain`.

        Raises:
            UnavailableError: if the endpoint did not answer; try the chain again later.
            RunError: if the run can't go on.
        """
        attempts: list[Attempt] = []
        if reasons := self._check_input(chain):
            return rejected(chain, "input", reasons, attempts, {})
        note = ""
        for number in range(self.config.rounds):
            run = Round(chain, number, note, attempts)
            try:
                return await self._round(run)
            except GivenUp as end:
                note, last = "; ".join(end.reasons), end
            except RefusedError as error:
                return rejected(chain, "endpoint", [str(error)], attempts, run.artefacts)
        return rejected(chain, last.stage, last.reasons, attempts, run.artefacts)

    def _check_input(self, chain: Chain) -> list[str]:
        """Chains that can't come out right are not worth a request."""
        if tags := foreign_tags(chain.reasoning + chain.response, self.dialect):
            return [f"the text holds {', '.join(tags)}, which is a tag of the dialect {self.dialect.name}"]
        checked = chain.answer and not self.config.checks.keep_wrong
        if checked and compare_with(chain.answer, chain.reasoning) is Agreement.DIFFERS:
            return [f"the reasoning does not come to the answer {chain.answer!r} (checks.keep_wrong accepts it)"]
        return []

    async def _round(self, run: Round) -> Outcome:
        chain, config = run.chain, self.config
        tree = await self._ask(run, Summary(chain))
        run.artefacts["summary"] = tree
        grouping = await self._ask(run, GroupSteps(chain, tree))
        run.artefacts["grouping"] = grouping
        plan = Plan(plan=[str(number) for number in range(1, len(tree.steps) + 1)])
        if grouping.groups:
            plan = await self._ask(run, Restructure(chain, tree, grouping, self.max_depth))
        run.artefacts["plan"] = plan
        if not sites(plan, Refill(sentences={})):
            if config.keep_sequential:
                return accepted(run.chain, chain.reasoning, self.dialect, run.attempts, run.artefacts, run.checks)
            raise GivenUp("grouping", ["no steps are independent (keep_sequential accepts such chains)"])
        refill = await self._ask(run, RefillSteps(chain, tree, plan, self.dialect, config.checks.max_edit_ratio))
        run.artefacts["refill"] = refill
        refilled = Writer(self.dialect, chain.sentences, refill).text(plan.plan)
        run.checks["edit_ratio"] = edit_ratio(chain.reasoning, refilled)
        blocks = await self._reduce(run, tree, grouping, plan, refill)
        run.artefacts["mapreduce"] = blocks
        document = Writer(self.dialect, edited(chain.sentences, *blocks), refill).document(plan, blocks)
        await self._check_document(run, plan, document)
        return accepted(chain, document, self.dialect, run.attempts, run.artefacts, run.checks)

    async def _reduce(
        self, run: Round, tree: SummaryTree, grouping: Grouping, plan: Plan, refill: Refill
    ) -> list[MapReduce]:
        """Stage 5 for all blocks: those of one depth at the same time, inner ones after the outer ones they are in."""
        found = sites(plan, refill)
        written: dict[int, MapReduce] = {}
        for depth in sorted({site.depth for site in found}):
            level = [site for site in found if site.depth == depth]
            sentences = edited(run.chain.sentences, *(written[index] for index in sorted(written)))
            blocks = await _together([self._reduce_block(run, tree, grouping, sentences, site) for site in level])
            written |= {site.index: block for site, block in zip(level, blocks, strict=True)}
        return [written[index] for index in sorted(written)]

    async def _reduce_block(
        self, run: Round, tree: SummaryTree, grouping: Grouping, sentences: Sequence[str], site: Site
    ) -> MapReduce:
        steps = {level for label in site.steps for level in (label, label.split(".")[0])}
        kind: Kind = next((group.kind for group in grouping.groups if steps.issuperset(group.steps)), "collective")
        stage = Reduce(run.chain, sentences, site, kind, tree.titles(), self.dialect, self.config.checks)
        judged = self.config.checks.judge
        return await self._ask(run, stage, site.index, partial(self._judge, run, stage) if judged else None)

    async def _judge(self, run: Round, stage: Reduce, written: MapReduce) -> list[str]:
        """What a language model has against the independence of a block that passed the rules."""
        verdict = await self._ask(run, Judge(run.chain, stage.sentences, stage.site, written), stage.site.index)
        return [f"path {d.path}: {d.reason}{d.quote and f' ({d.quote!r})'}" for d in verdict.dependencies]

    async def _ask(
        self,
        run: Round,
        stage: Stage[Output],
        block: int = 0,
        also: Callable[[Output], Awaitable[list[str]]] | None = None,
    ) -> Output:
        """Ask until the output passes its checks, each time with the reasons against the last reply.

        Args:
            block: which block of the plan it is about.
            also: a check that takes time, made when all others are passed.

        Raises:
            GivenUp: after so many tries.
        """
        model, parameters, tries = self.config.for_stage(stage.name)
        request = asked = stage.messages(run.note)
        reasons: list[str] = []
        for number in range(tries):
            reply = await self.client.ask(stage.name, model, asked, parameters, run.number * tries + number)
            try:
                output = decode(reply.text, stage.output, reply.finish_reason)
                reasons = stage.check(output) or (await also(output) if also else [])
            except ReplyError as error:
                reasons = [str(error)]
            run.attempts.append(Attempt(stage.name, block, run.number, number, reasons))
            if not reasons:
                return output
            said = {"role": "assistant", "content": reply.text or "(empty)"}
            asked = [*request, said, {"role": "user", "content": prompting.feedback(reasons)}]
        raise GivenUp(stage.name, reasons)

    async def _check_document(self, run: Round, plan: Plan, document: str) -> None:
        """What only the whole can show."""
        reasons = check_grammar(document, plan.plan, self.dialect)
        if not reasons:
            text = plain(document, self.dialect)
            reasons = check_answer(run.chain.reasoning, text)
            run.checks["answer"] = str(compare_answers(run.chain.reasoning, text))
        if not reasons and self.likelihood is not None:
            drops = await self.likelihood.drops(run.chain.question, document)
            run.checks["likelihood_drops"] = drops
            reasons = self.likelihood.judge(drops)
        run.attempts.append(Attempt("document", 0, run.number, 0, reasons))
        if reasons:
            raise GivenUp("document", reasons)


async def _together(work: Sequence[Awaitable[Output]]) -> list[Output]:
    """All results in order. All of them end before an error is raised, and it is always the same one."""
    results = await asyncio.gather(*work, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in sorted(errors, key=lambda error: isinstance(error, GivenUp)):
        raise error
    return [result for result in results if not isinstance(result, BaseException)]
