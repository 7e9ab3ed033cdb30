"""A transcript as a tree of blocks over a flat list of tokens.

Nodes hold spans `[start, end)` of token indices in document order (the linear order of SEMANTICS section 2), never
copies of tokens, so text -> tree -> text and ids -> tree -> ids are the identity by construction. Tokens are either
ids (`int`) or pieces of text (`str`); nothing here depends on which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from multiverse.structure.reasons import Reason

Token = int | str


@dataclass(slots=True)
class Outline:
    """One outline: its label and its span, tags included."""

    label: str
    start: int
    end: int


@dataclass(slots=True)
class Path:
    """One path.

    Attributes:
        label: the number it starts with, else that of its outline, else its ordinal.
        start: index of path-open.
        end: one past the last token it owns: header, body, path-close and the separator after it.
        close: index of path-close, `None` if the transcript ended first.
        blocks: the blocks inside, in order.
        offset: how many positions a program moved its beginning by; 0 for paths that a model wrote.
    """

    label: str
    start: int
    end: int
    close: int | None = None
    blocks: list[Block] = field(default_factory=list)
    offset: int = 0


@dataclass(slots=True)
class Conclusion:
    """The conclusion: `start` is conclusion-open, `close` conclusion-close if there is one."""

    start: int
    end: int
    close: int | None = None
    blocks: list[Block] = field(default_factory=list)


@dataclass(slots=True)
class Block:
    """One block.

    Attributes:
        start: index of its first tag.
        end: one past its last token.
        depth: 1 for a block outside of any other, 2 for one in a path or conclusion of such a block, ...
        goal_close: index of goal-close, where the fork happens; `None` if it never came.
        reason: why the block is sequential; `None` if its paths are parallel.
    """

    start: int
    end: int
    depth: int
    goal_close: int | None = None
    outlines: list[Outline] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    conclusion: Conclusion | None = None
    reason: Reason | None = None

    @property
    def width(self) -> int:
        """Number of branches that the block asks for."""
        return len(self.outlines)

    @property
    def parallel(self) -> bool:
        """Whether the two position resets of SEMANTICS section 2 apply."""
        return self.reason is None and bool(self.paths)

    def inner(self) -> list[Block]:
        """The blocks directly inside this one, in document order."""
        bodies: list[Path | Conclusion] = [*self.paths]
        if self.conclusion is not None:
            bodies.append(self.conclusion)
        return [block for body in bodies for block in body.blocks]


@dataclass(frozen=True, slots=True)
class Violation:
    """A place where a transcript breaks the grammar.

    Attributes:
        index: index of the token there (the number of tokens, for the end of the transcript).
        offset: characters before that token, `None` if the tokens are ids.
        found: the offending tag, or `end of text`.
        message: what is wrong, in words.
    """

    index: int
    offset: int | None
    found: str
    message: str

    def __str__(self) -> str:
        place = f"token {self.index}" if self.offset is None else f"character {self.offset}"
        return f"{self.message} at {place}"


@dataclass(slots=True)
class Transcript:
    """Tokens and the blocks among them.

    Attributes:
        dialect: name of the dialect it was read with.
        tokens: ids or pieces of text, in document order.
        blocks: the outermost blocks.
        violations: every place that breaks the grammar, in order; empty if well formed.
        logprobs: what a decoder reported for each token, `None` for a token it did not rate (the prompt, the first
            token after a join); `None` altogether if nothing was reported.
    """

    dialect: str
    tokens: list[Token]
    blocks: list[Block] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    logprobs: list[float | None] | None = None
    stray_text: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def well_formed(self) -> bool:
        """Whether the transcript follows the grammar from the first token to the last."""
        return not self.violations

    @property
    def text(self) -> str:
        """The transcript as text.

        Raises:
            TypeError: if its tokens are ids: decode `ids` with the tokenizer instead.
        """
        return "".join(self.tokens)  # type: ignore[arg-type]  # join itself raises for ids

    @property
    def ids(self) -> list[int]:
        """The token ids, in document order (pieces of text, if it was parsed from text)."""
        return list(self.tokens)  # type: ignore[arg-type]

    def walk(self) -> Iterator[Block]:
        """Every block, outer before inner, in document order."""
        stack = self.blocks[::-1]
        while stack:
            block = stack.pop()
            yield block
            stack.extend(reversed(block.inner()))

    def to_dict(self) -> dict[str, Any]:
        """The transcript as JSON-ready data; `Transcript.from_dict` is its inverse."""
        return {
            "dialect": self.dialect,
            "tokens": list(self.tokens),
            "blocks": [_block_to_dict(block) for block in self.blocks],
            "violations": [
                {"index": v.index, "offset": v.offset, "found": v.found, "message": v.message} for v in self.violations
            ],
            "logprobs": self.logprobs,
            "stray_text": [list(span) for span in self.stray_text],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Transcript:
        """Read what `to_dict` wrote.

        Raises:
            KeyError, TypeError: if `data` has not that shape.
        """
        blocks = [_block_from_dict(block) for block in data["blocks"]]
        violations = [Violation(**violation) for violation in data["violations"]]
        stray = [(start, end) for start, end in data.get("stray_text", [])]
        return cls(data["dialect"], list(data["tokens"]), blocks, violations, data.get("logprobs"), stray)


def _body_to_dict(body: Path | Conclusion) -> dict[str, Any]:
    label = {"label": body.label} if isinstance(body, Path) else {}
    blocks = [_block_to_dict(block) for block in body.blocks]
    return label | {"start": body.start, "end": body.end, "close": body.close, "blocks": blocks}


def _block_to_dict(block: Block) -> dict[str, Any]:
    return {
        "start": block.start,
        "end": block.end,
        "depth": block.depth,
        "goal_close": block.goal_close,
        "outlines": [{"label": o.label, "start": o.start, "end": o.end} for o in block.outlines],
        "paths": [_body_to_dict(path) for path in block.paths],
        "conclusion": None if block.conclusion is None else _body_to_dict(block.conclusion),
        "reason": None if block.reason is None else str(block.reason),
    }


def _blocks(data: Sequence[dict[str, Any]]) -> list[Block]:
    return [_block_from_dict(block) for block in data]


def _block_from_dict(data: dict[str, Any]) -> Block:
    paths = [Path(**path | {"blocks": _blocks(path["blocks"])}) for path in data["paths"]]
    conclusion = data["conclusion"]
    return Block(
        start=data["start"],
        end=data["end"],
        depth=data["depth"],
        goal_close=data["goal_close"],
        outlines=[Outline(**outline) for outline in data["outlines"]],
        paths=paths,
        conclusion=conclusion and Conclusion(**conclusion | {"blocks": _blocks(conclusion["blocks"])}),
        reason=data["reason"] and Reason(data["reason"]),
    )
