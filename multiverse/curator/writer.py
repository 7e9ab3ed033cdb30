"""From plan, refill and the blocks' texts to a document in a dialect: the only place that writes tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from multiverse.curator.artefacts import Fork, Item, MapReduce, Plan, Refill
from multiverse.curator.plan import forks
from multiverse.structure.dialects import Dialect, TagPair


class Writer:
    """Writes documents of one chain.

    Args:
        sentences: the chain's sentences with the white space behind them, in their latest words; number `n` is
            `sentences[n - 1]`.
        refill: which of them belong to which label.
    """

    def __init__(self, dialect: Dialect, sentences: Sequence[str], refill: Refill) -> None:
        self.dialect = dialect
        self.sentences = sentences
        self.refill = refill
        # multiverse writes what is between tags on lines of its own; a dialect whose header begins otherwise does not
        self._edge = "\n" if dialect.path_header.startswith("\n") else ""

    def document(self, plan: Plan, blocks: Sequence[MapReduce]) -> str:
        """The whole reasoning; `blocks` in the order of `multiverse.curator.plan.forks`."""
        texts = {id(fork): block for fork, block in zip(forks(plan.plan), blocks, strict=True)}
        return self._body(plan.plan, texts, "")

    def text(self, items: Sequence[Item]) -> str:
        """The sentences of `items` without any block around them."""
        texts = [self._leaf(item) if isinstance(item, str) else self._paths(item) for item in items]
        return "".join(texts).strip()

    def _paths(self, fork: Fork) -> str:
        return "".join(self.text(path) + "\n" for path in fork.parallel)

    def _leaf(self, label: str) -> str:
        return "".join(self.sentences[number - 1] for number in self.refill.sentences.get(label, ()))

    def _body(self, items: Sequence[Item], blocks: Mapping[int, MapReduce], prefix: str) -> str:
        parts: list[str] = []
        run = ""
        for item in items:
            if isinstance(item, str):
                run += self._leaf(item)
                continue
            parts += [run.strip(), self._block(item, blocks, prefix)]
            run = ""
        return "\n".join(part for part in (*parts, run.strip()) if part)

    def _block(self, fork: Fork, blocks: Mapping[int, MapReduce], prefix: str) -> str:
        dialect, written = self.dialect, blocks[id(fork)]
        names = [f"{prefix}{i}" for i in range(1, len(fork.parallel) + 1)]
        outlines = [
            self._inside(dialect.outline, f"{self._header(name)} {outline}")
            for name, outline in zip(names, written.outlines, strict=True)
        ]
        paths = [
            self._inside(dialect.path, f"{self._header(name)} {self._body(path, blocks, f'{name}.')}")
            for name, path in zip(names, fork.parallel, strict=True)
        ]
        goal_open, goal_close = dialect.goal
        closing = [dialect.block[1]] if dialect.block else []
        if dialect.conclusion:
            text = dialect.conclusion_header + self._edge + written.conclusion
            end = [self._inside(dialect.conclusion, text), *closing]
        else:
            end = [*closing, written.conclusion]
        head = dialect.separator.join([written.goal, *dialect.block[:1], goal_open, *outlines, goal_close])
        body = dialect.separator_at("path").join(paths)
        tail = dialect.separator.join(end)
        return f"{head}{dialect.separator_at('goal')}{body}{dialect.separator_at('last')}{tail}"

    def _header(self, label: str) -> str:
        return self.dialect.path_header.format(label=label)

    def _inside(self, tags: TagPair, text: str) -> str:
        return f"{tags[0]}{text}{self._edge}{''.join(tags[1:])}"
