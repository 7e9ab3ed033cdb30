"""The browsable report: one page, no network, with original and result side by side and the differences marked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from multiverse.curator.artefacts import Fork, Grouping, Item, MapReduce, Plan, Refill, SummaryTree
from multiverse.curator.config import Price
from multiverse.curator.plan import forks
from multiverse.curator.sentences import split
from multiverse.curator.stages import edited
from multiverse.curator.statistics import CorpusStatistics
from multiverse.curator.store import Shards, merged

TEMPLATES = Path(__file__).parent / "templates"
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


def write_report(
    output: Path, target: Path, statistics: CorpusStatistics, prices: Mapping[str, Price], samples: int
) -> int:
    """Write the page. Returns how many samples are on it: evenly spread over the corpus, refusals included.

    Raises:
        RunError: if `output` holds no run.
    """
    every = max(1, -(-statistics.chains // samples))
    with ExitStack() as stack:
        stores = Shards(output).open_all(stack)
        shown = [_sample(outcome) for i, (_, _, outcome) in enumerate(merged(stores)) if i % every == 0]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("report.html.j2")
    cost = statistics.cost(prices)
    target.write_text(page.render(samples=shown, statistics=statistics.to_dict(), cost=cost), encoding="utf-8")
    return len(shown)


def _sample(outcome: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of one outcome."""
    chain, artefacts = outcome["chain"], outcome["artefacts"]
    retries = [attempt for attempt in outcome["attempts"] if attempt["reasons"]]
    sample = {**outcome, "retries": retries, "original": [], "result": []}
    if not chain:
        return sample
    sentences = split(chain["reasoning"])
    if "mapreduce" not in artefacts:
        sample["original"] = [(number, escape(text)) for number, text in enumerate(sentences, 1)]
        return sample
    page = _Page(sentences, artefacts)
    return sample | {"original": page.original(), "result": page.body(page.plan.plan, "")}


class _Page:
    """Original and result of one accepted chain as nested lists for the template."""

    def __init__(self, sentences: Sequence[str], artefacts: dict[str, Any]) -> None:
        self.sentences = sentences
        self.plan = Plan.model_validate(artefacts["plan"])
        self.refill = Refill.model_validate(artefacts["refill"])
        self.titles = SummaryTree.model_validate(artefacts["summary"]).titles()
        self.grouping = Grouping.model_validate(artefacts["grouping"])
        written = [MapReduce.model_validate(block) for block in artefacts["mapreduce"]]
        self.new = edited(sentences, *written)
        self.blocks = {id(fork): block for fork, block in zip(forks(self.plan.plan), written, strict=True)}

    def original(self) -> list[tuple[int, Markup]]:
        """Every sentence with its number; words that were changed are marked."""
        pairs = enumerate(zip(self.sentences, self.new, strict=True), 1)
        return [(number, _marked(old, new, "del")) for number, (old, new) in pairs]

    def body(self, items: Sequence[Item], prefix: str) -> list[dict[str, Any]]:
        """Steps and blocks in order."""
        return [self._step(item) if isinstance(item, str) else self._block(item, prefix) for item in items]

    def _step(self, label: str) -> dict[str, Any]:
        numbers = self.refill.sentences[label]
        texts = [(n, _marked(self.new[n - 1], self.sentences[n - 1], "ins")) for n in numbers]
        return {"title": self.titles[label], "label": label, "sentences": texts}

    def _block(self, fork: Fork, prefix: str) -> dict[str, Any]:
        written = self.blocks[id(fork)]
        names = [f"{prefix}{number}" for number in range(1, len(fork.parallel) + 1)]
        paths = [
            {"label": name, "outline": outline, "body": self.body(path, f"{name}.")}
            for name, outline, path in zip(names, written.outlines, fork.parallel, strict=True)
        ]
        return {"goal": written.goal, "paths": paths, "conclusion": written.conclusion}


def _marked(text: str, other: str, tag: str) -> Markup:
    """`text` with the words that are not in `other` marked by `tag`."""
    if text == other:
        return escape(text.strip())
    words, others = _WORDS.findall(text.strip()), _WORDS.findall(other.strip())
    parts = []
    for kind, start, end, _, _ in difflib.SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
        piece = escape("".join(words[start:end]))
        parts.append(Markup("<{0}>{1}</{0}>").format(tag, piece) if kind != "equal" and piece else piece)
    return Markup("").join(parts)
