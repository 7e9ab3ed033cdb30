"""The five stages and the judge: each is a prompt, a typed output and the checks of that output.

A stage is made for one chain (or one block of it) with all that it needs, and knows neither endpoint nor store.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from multiverse.curator import prompting
from multiverse.curator.artefacts import (
    Artefact,
    Fork,
    Grouping,
    Kind,
    MapReduce,
    Plan,
    Refill,
    SummaryTree,
    Verdict,
)
from multiverse.curator.chains import Chain
from multiverse.curator.checks.content import check_coverage, check_edit_ratio, check_edits
from multiverse.curator.checks.grammar import check_grammar
from multiverse.curator.checks.independence import check_references, check_results
from multiverse.curator.checks.structure import check_grouping, check_plan
from multiverse.curator.config import Checks, StageName
from multiverse.curator.plan import Site, labels
from multiverse.curator.writer import Writer
from multiverse.structure.dialects import Dialect

Output = TypeVar("Output", bound=Artefact)


class Stage(ABC, Generic[Output]):
    """One task for a language model.

    Attributes:
        name: of the stage and of its prompt template.
        output: the type of what comes out.
    """

    name: ClassVar[StageName]
    output: type[Output]

    def messages(self, note: str) -> list[dict[str, str]]:
        """The request; `note` says why an earlier round of the same chain was given up, or is empty."""
        return prompting.messages(self.name, note=note, **self.context())

    @abstractmethod
    def context(self) -> dict[str, Any]:
        """The values that the template needs."""

    @abstractmethod
    def check(self, output: Output) -> list[str]:
        """What is wrong with `output`, in sentences for the model; empty if nothing is."""


class Summary(Stage[SummaryTree]):
    """Stage 1: main steps and substeps of the chain."""

    name = "summary"
    output = SummaryTree

    def __init__(self, chain: Chain) -> None:
        self.chain = chain

    def context(self) -> dict[str, Any]:
        return {"question": self.chain.question, "sentences": self.chain.sentences}

    def check(self, output: SummaryTree) -> list[str]:
        steps = sum(len(output.leaves(str(number))) for number in range(1, len(output.steps) + 1))
        count = len(self.chain.sentences)
        return [f"there are {steps} steps but only {count} sentences"] if steps > count else []


class GroupSteps(Stage[Grouping]):
    """Stage 2: neighbouring steps that do not need each other."""

    name = "grouping"
    output = Grouping

    def __init__(self, chain: Chain, tree: SummaryTree) -> None:
        self.chain, self.tree = chain, tree

    def context(self) -> dict[str, Any]:
        chain = self.chain
        return {"question": chain.question, "sentences": chain.sentences, "titles": self.tree.titles()}

    def check(self, output: Grouping) -> list[str]:
        return check_grouping(self.tree, output)


class Restructure(Stage[Plan]):
    """Stage 3: groups become parallel blocks."""

    name = "restructuring"
    output = Plan

    def __init__(self, chain: Chain, tree: SummaryTree, grouping: Grouping, max_depth: int) -> None:
        self.chain, self.tree, self.grouping, self.max_depth = chain, tree, grouping, max_depth

    def context(self) -> dict[str, Any]:
        return {
            "question": self.chain.question,
            "titles": self.tree.titles(),
            "groups": self.grouping.groups,
            "max_depth": self.max_depth,
        }

    def check(self, output: Plan) -> list[str]:
        return check_plan(self.tree, self.grouping, output, self.max_depth)


class RefillSteps(Stage[Refill]):
    """Stage 4: the original sentences go back into the plan."""

    name = "refilling"
    output = Refill

    def __init__(self, chain: Chain, tree: SummaryTree, plan: Plan, dialect: Dialect, limit: float) -> None:
        self.chain, self.tree, self.plan, self.dialect, self.limit = chain, tree, plan, dialect, limit

    def context(self) -> dict[str, Any]:
        return {
            "question": self.chain.question,
            "sentences": self.chain.sentences,
            "titles": self.tree.titles(),
            "labels": labels(self.plan.plan),
        }

    def check(self, output: Refill) -> list[str]:
        found = check_coverage(output, labels(self.plan.plan), len(self.chain.sentences))
        if found:
            return found
        text = Writer(self.dialect, self.chain.sentences, output).text(self.plan.plan)
        return check_edit_ratio(self.chain.reasoning, text, self.limit)


class Reduce(Stage[MapReduce]):
    """Stage 5, for one block: goal, outlines, sentences that stand alone, conclusion.

    Args:
        sentences: of the whole chain, as edited so far.
        site: the block.
    """

    name = "mapreduce"
    output = MapReduce

    def __init__(
        self,
        chain: Chain,
        sentences: Sequence[str],
        site: Site,
        kind: Kind,
        titles: dict[str, str],
        dialect: Dialect,
        limits: Checks,
    ) -> None:
        self.chain, self.sentences, self.site, self.kind = chain, sentences, site, kind
        self.titles, self.dialect, self.limits = titles, dialect, limits

    def context(self) -> dict[str, Any]:
        paths = [
            {
                "title": " / ".join(self.titles[label] for label in labels(items)),
                "sentences": [(number, self.sentences[number - 1]) for number in numbers],
            }
            for items, numbers in zip(self.site.items, self.site.paths, strict=True)
        ]
        before = [self.sentences[number - 1] for number in self.site.before]
        return {"question": self.chain.question, "kind": self.kind, "before": before, "paths": paths}

    def check(self, output: MapReduce) -> list[str]:
        if len(output.outlines) != len(self.site.paths):
            return [f"there are {len(output.outlines)} outlines for {len(self.site.paths)} paths"]
        found = check_edits(output.edits, self.sentences, self.site.paths, self.limits.max_rewrite)
        if found:
            return found
        names = [self.site.label(i) for i in range(len(self.site.paths))]
        texts = path_texts(self.site, edited(self.sentences, output))
        known = "\n".join((self.chain.question, *(self.sentences[number - 1] for number in self.site.before)))
        return [
            *self._check_tags(output, texts),
            *check_references(texts, names),
            *check_results(known, output.outlines, texts, names),
        ]

    def _check_tags(self, output: MapReduce, texts: Sequence[str]) -> list[str]:
        """Write the block by itself, its paths without blocks of their own, and parse it."""
        flat = Refill(sentences={str(i): [i] for i in range(1, len(texts) + 1)})
        plan = Plan(plan=[Fork(parallel=[[label] for label in flat.sentences])])
        return check_grammar(Writer(self.dialect, texts, flat).document(plan, [output]), plan.plan, self.dialect)


class Judge(Stage[Verdict]):
    """The optional judge of independence, for one block that is written already."""

    name = "judge"
    output = Verdict

    def __init__(self, chain: Chain, sentences: Sequence[str], site: Site, written: MapReduce) -> None:
        self.chain, self.sentences, self.site, self.written = chain, sentences, site, written

    def context(self) -> dict[str, Any]:
        texts = path_texts(self.site, edited(self.sentences, self.written))
        paths = [{"outline": o, "text": t} for o, t in zip(self.written.outlines, texts, strict=True)]
        before = [self.sentences[number - 1] for number in self.site.before]
        return {"question": self.chain.question, "before": before, "paths": paths}

    def check(self, output: Verdict) -> list[str]:  # noqa: ARG002  # any verdict is a verdict
        return []


def edited(sentences: Sequence[str], *blocks: MapReduce) -> list[str]:
    """`sentences` with the edits of `blocks`, each keeping the white space behind it."""
    new = list(sentences)
    for block in blocks:
        for number, text in block.edits.items():
            old = new[number - 1]
            new[number - 1] = text.strip() + old[len(old.rstrip()) :]
    return new


def path_texts(site: Site, sentences: Sequence[str]) -> list[str]:
    """The text of every path, without tags."""
    return ["".join(sentences[number - 1] for number in path).strip() for path in site.paths]
