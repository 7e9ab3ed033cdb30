"""A rollout: one answer as its engine decoded it, in the form that trainers read.

A strand is a run of tokens with a place in the tree; all columns of it are as long as its tokens. Document order is
that of SEMANTICS section 2: a strand up to its fork, then its branches one after the other, then the rest of it.
Nothing here knows a tokenizer, a dialect or a host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

from multiverse.errors import RolloutError
from multiverse.structure.layout import Interval, Layout, Segment

SCHEMA = 1
"""Version of the schema, `docs/rl.md`. It rises when a field changes its meaning or goes; fields may be added to it."""
Key = tuple[int, ...]
Column = TypeVar("Column")


@dataclass(frozen=True, slots=True)
class RolloutStrand:
    """The answer itself, or a branch of it.

    Attributes:
        key: `()` for the answer, then one (block, branch) pair of ordinals per level.
        parent: index of the strand that forked it; -1 for the answer.
        label: of a branch; empty for the answer.
        token_ids: its own tokens, header and closing tag included, those of its branches not.
        positions: of these tokens; the prompt begins at 0.
        injected: whether the engine wrote the token; all others were sampled.
        logprobs: of the sampled tokens in nats, under the weights that sampled them; `None` where the engine wrote.
        temperature: what logits are divided by before `logprobs` are taken: 1.0 for those of the raw model.
        forks: offsets in `token_ids` at which it forked, in order.
        finish_reason: of a branch `path_close`, `stop`, `length` or `abort`; of the answer the last three.
        fallbacks: offsets of goals that were closed there and not forked, and why.
        weight_versions: `(version, start, end)` for each run of its tokens, covering all of them.
    """

    key: Key
    parent: int
    label: str
    token_ids: list[int]
    positions: list[int]
    injected: list[bool]
    logprobs: list[float | None]
    temperature: float
    forks: list[int]
    finish_reason: str | None
    fallbacks: list[tuple[int, str]]
    weight_versions: list[tuple[str | None, int, int]]

    @property
    def versions(self) -> list[str | None]:
        """The weight version of every token."""
        return [version for version, start, end in self.weight_versions for _ in range(start, end)]


@dataclass(frozen=True)
class Rollout:
    """One answer to one prompt.

    Attributes:
        id: of the answer.
        group: of the prompt; answers to one prompt have the same.
        prompt_ids: tokens of the prompt.
        prompt_segments: layout of the prompt: one segment, unless it holds blocks.
        strands: the answer and its branches, parents before their branches, branches in order.
        finish_reason: why the answer ended: `stop`, `length` or `abort`.

    Raises:
        RolloutError: if its parts don't fit together, naming the one that doesn't.
    """

    id: str
    group: str
    prompt_ids: list[int]
    prompt_segments: tuple[Segment, ...]
    strands: tuple[RolloutStrand, ...]
    finish_reason: str | None

    def __post_init__(self) -> None:
        _check(self)

    def spans(self) -> Iterator[tuple[RolloutStrand, int, int]]:
        """The answer as `(strand, start, end)` spans of their tokens, in document order."""
        return self._spans(0)

    def document(self, column: str) -> list[Column]:
        """A column of the strands (`token_ids`, `positions`, `injected`, `logprobs`, `versions`) in document order."""
        columns = {strand.key: getattr(strand, column) for strand in self.strands}
        return [value for strand, start, end in self.spans() for value in columns[strand.key][start:end]]

    @cached_property
    def ids(self) -> list[int]:
        """Prompt and answer, in document order."""
        return self.prompt_ids + self.document("token_ids")

    @cached_property
    def layout(self) -> Layout:
        """Positions and visibility of `ids`: those under which every token was computed."""
        writer = _Writer(self)
        writer.strand(0, (), len(self.prompt_ids) - 1)
        last = writer.segments[-1]
        return Layout(tuple(writer.segments), writer.end, last.position + last.end - last.start)

    @cached_property
    def branches(self) -> dict[tuple[int, int], list[int]]:
        """By index of a strand and ordinal of its fork: the indices of the branches."""
        found: dict[tuple[int, int], list[int]] = {}
        for index, strand in enumerate(self.strands):
            if strand.key:
                found.setdefault((strand.parent, strand.key[-2]), []).append(index)
        return found

    def _spans(self, index: int) -> Iterator[tuple[RolloutStrand, int, int]]:
        strand, at = self.strands[index], 0
        for block, fork in enumerate(strand.forks):
            yield strand, at, fork
            for branch in self.branches[index, block]:
                yield from self._spans(branch)
            at = fork
        yield strand, at, len(strand.token_ids)


class _Writer:
    """Appends the segments of strands in document order; recursion follows nesting, which the engine bounds."""

    def __init__(self, rollout: Rollout) -> None:
        self.rollout = rollout
        self.segments = list(rollout.prompt_segments)
        self.end = len(rollout.prompt_ids)

    def strand(self, index: int, hidden: tuple[Interval, ...], predecessor: int) -> None:
        """Lay out a strand and its branches."""
        strand, at = self.rollout.strands[index], 0
        for block, fork in enumerate(strand.forks):
            self._run(strand, at, fork, hidden, predecessor)
            first = self.end
            for branch in self.rollout.branches[index, block]:
                siblings = ((first, self.end),) if self.end > first else ()
                self.strand(branch, hidden + siblings, first - 1)
            at, predecessor = fork, -1
        self._run(strand, at, len(strand.token_ids), hidden, predecessor)

    def _run(self, strand: RolloutStrand, start: int, end: int, hidden: tuple[Interval, ...], predecessor: int) -> None:
        if end > start:
            stop = self.end + end - start
            self.segments.append(Segment(self.end, stop, strand.positions[start], hidden, predecessor))
            self.end = stop


def _check(rollout: Rollout) -> None:
    if not rollout.prompt_ids or not rollout.strands or rollout.strands[0].key:
        raise RolloutError(f"{rollout.id}: a rollout has a prompt and the answer itself, key (), as its first strand")
    for index, strand in enumerate(rollout.strands):
        problem = _problem(rollout, index, strand)
        if problem:
            raise RolloutError(f"{rollout.id}: strand {list(strand.key)}: {problem}")


def _problem(rollout: Rollout, index: int, strand: RolloutStrand) -> str | None:
    """What is wrong with a strand, in words."""
    count = len(strand.token_ids)
    for name in ("positions", "injected", "logprobs", "versions"):
        if len(getattr(strand, name)) != count:
            return f"{name} are {len(getattr(strand, name))}, tokens {count}"
    if strand.key and not (0 <= strand.parent < index and rollout.strands[strand.parent].key == strand.key[:-2]):
        return f"its parent must come before it, got strand {strand.parent}"
    forked = all((index, block) in rollout.branches for block in range(len(strand.forks)))
    if strand.forks != sorted(strand.forks) or not forked:
        return f"every fork must be in order and have branches, got forks {strand.forks}"
    for start, end in pairwise([0, *strand.forks, count]):
        first = strand.positions[start] if end > start else 0
        if strand.positions[start:end] != list(range(first, first + end - start)):
            return f"positions must rise by one from token {start} to {end}"
    for at, (value, written) in enumerate(zip(strand.logprobs, strand.injected, strict=True)):
        if (value is None) is not written:
            who = "the engine wrote it, but it has a logprob" if written else "it was sampled, but has no logprob"
            return f"token {at}: {who}"
    return None
