"""The numeric test of independence: a path must not become less likely when its siblings are hidden.

Any local causal LM will do; it need not know the tags. A document is rated twice: as plain text, where a path sees all
that stands before it, and for every block once more with the siblings of each of its paths hidden by the dense mask
of its layout. For a path whose siblings are hidden that is exactly prefix and path as plain text.
torch is imported only when a test is made.
"""

from __future__ import annotations

import asyncio
from typing import Any

from multiverse.curator.config import Likelihood
from multiverse.errors import RunError
from multiverse.structure.dialects import Dialect
from multiverse.structure.layout import layout
from multiverse.structure.parser import parse_text
from multiverse.structure.tree import Block, Path, Transcript

Drops = dict[str, float]
"""By block and path, such as `1/2`: nats per token that the path loses without its siblings."""

_SPANS = ("start", "end", "close", "goal_close")


class LikelihoodTest:
    """The test with one model.

    Raises:
        RunError: if torch is missing or the model can't be loaded.
    """

    def __init__(self, settings: Likelihood, dialect: Dialect) -> None:
        try:
            from multiverse.oracle import load
        except ImportError as error:
            raise RunError("checks.likelihood needs torch: pip install multiverse-engine[oracle]") from error
        self.max_drop = settings.max_drop
        self.dialect = dialect
        self._model, self._tokenizer = load(settings.model)
        self._turn = asyncio.Lock()

    async def drops(self, question: str, document: str) -> Drops:
        """Rate `document`, one at a time and beside the event loop."""
        async with self._turn:
            return await asyncio.to_thread(self.measure, question, document)

    def judge(self, drops: Drops) -> list[str]:
        """The paths that lose more than allowed, in words."""
        return [
            f"path {path.split('/')[1]} of block {path.split('/')[0]} is {drop:.2f} nats per token less likely"
            f" without its siblings, allowed are {self.max_drop:.2f}: it seems to depend on them"
            for path, drop in drops.items()
            if drop > self.max_drop
        ]

    def measure(self, question: str, document: str) -> Drops:
        """How much every path but the first of each block loses, in nats per token."""
        from multiverse.oracle import causal, rate

        tree = to_ids(parse_text(document, self.dialect), self._tokenizer, self._prompt(question))
        visible = rate(self._model, tree.ids, causal(len(tree)))
        found: Drops = {}
        for number, block in enumerate(tree.walk(), 1):
            alone = Transcript(tree.dialect, tree.tokens, [_without_inner(block)])
            hidden = rate(self._model, tree.ids, layout(alone))
            for path in block.paths[1:]:
                inside = range(path.start + self._header(path.label), path.end if path.close is None else path.close)
                lost = sum(visible[i] - hidden[i] for i in inside)
                found[f"{number}/{path.label}"] = round(lost / max(1, len(inside)), 4)
        return found

    def _header(self, label: str) -> int:
        """Tokens of the path's tag and label, which an engine writes: nothing has to predict them."""
        header = self.dialect.path[0] + self.dialect.path_header.format(label=label)
        return len(self._tokenizer.encode(header, add_special_tokens=False))

    def _prompt(self, question: str) -> str:
        if getattr(self._tokenizer, "chat_template", None):
            turn = [{"role": "user", "content": question}]
            return str(self._tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False))
        return f"{question}\n\n"


def to_ids(tree: Transcript, tokenizer: Any, prompt: str) -> Transcript:
    """`tree`, parsed from text, over the ids of any tokenizer, behind `prompt`. A tag may be several ids."""
    data = tree.to_dict()
    cuts = sorted({0, len(tree)} | _spans(data["blocks"]))
    ids = list(tokenizer.encode(prompt, add_special_tokens=False))
    moved = {}
    for start, end in zip(cuts, [*cuts[1:], cuts[-1]], strict=True):
        moved[start] = len(ids)
        ids += tokenizer.encode("".join(map(str, tree.tokens[start:end])), add_special_tokens=False)
    return Transcript.from_dict(data | {"tokens": ids, "blocks": _move(data["blocks"], moved)})


def _spans(value: Any) -> set[int]:
    """Every place in a tree's data where a node begins or ends."""
    if isinstance(value, list):
        return {place for item in value for place in _spans(item)}
    if not isinstance(value, dict):
        return set()
    own = {place for key, place in value.items() if key in _SPANS and place is not None}
    return own | {place for item in value.values() for place in _spans(item)}


def _move(value: Any, moved: dict[int, int]) -> Any:
    if isinstance(value, list):
        return [_move(item, moved) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: moved[item] if key in _SPANS and item is not None else _move(item, moved) for key, item in value.items()
    }


def _without_inner(block: Block) -> Block:
    paths = [Path(path.label, path.start, path.end, path.close) for path in block.paths]
    return Block(block.start, block.end, block.depth, block.goal_close, block.outlines, paths)
