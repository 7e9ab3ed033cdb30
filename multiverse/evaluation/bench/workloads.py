"""What is asked for: answers of given shapes, made up or taken from recorded answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from multiverse.decoding.shaped import Shape
from multiverse.errors import RunError
from multiverse.evaluation.plan.machine import Array
from multiverse.evaluation.plan.shapes import Shape as Steps
from multiverse.harness.records import readable
from multiverse.structure.binding import Binding
from multiverse.structure.layout import parallel_blocks
from multiverse.structure.parser import parse_text
from multiverse.structure.tree import Block, Transcript

BEFORE, AFTER = 4, 16
"""Tokens before and after the block of an answer with one block."""


@dataclass(frozen=True)
class Workload:
    """One answer.

    Attributes:
        name: for people.
        shape: as a request gives it.
        steps: how many tokens every step computes and what KV they read, the prompt in front of it. The goals of blocks
            are not in it: a forced shape prefills them, and so does a client that forks.
        goals: their tokens.
        branches: of all blocks.
    """

    name: str
    shape: Shape
    steps: Steps
    goals: int
    branches: int

    @property
    def tokens(self) -> int:
        """All of its tokens but the goals."""
        return self.steps.tokens

    @property
    def critical_path(self) -> int:
        """Its steps."""
        return len(self.steps.width)

    @property
    def bound(self) -> float:
        """The speed-up that it would have if every step took the same time."""
        return self.tokens / self.critical_path


def workload(name: str, shape: Shape, binding: Binding, prompt: int) -> Workload:
    """The workload of a shape, behind a prompt of so many tokens."""
    builder = _Steps(binding)
    width, read = builder.strand(shape, prompt)
    return Workload(name, shape, Steps(width, read, int(width.sum()), prompt), builder.goals, builder.branches)


class _Steps:
    """Steps of shapes as `(width, read)` arrays. What an engine writes itself, but for goals, counts as decoded."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self.goals = self.branches = 0

    def strand(self, shape: Shape, known: int, before: int = 0, after: int = 0) -> tuple[Array, Array]:
        """A strand behind `known` tokens, with so many tokens of the engine's before and after its own."""
        lengths = [*shape[::2]]
        lengths[0] += before
        lengths[-1] += after
        widths: list[Array] = []
        reads: list[Array] = []
        for at, length in enumerate(lengths):
            widths.append(np.ones(length))
            reads.append(known + np.arange(length, dtype=float))
            known += length
            if at + 1 < len(lengths):
                lengths[at + 1] += len(self._binding.conclusion_header)
                goals = self.goals
                width, read = self._block(shape[2 * at + 1], known)
                widths.append(width)
                reads.append(read)
                known += int(width.sum()) + self.goals - goals
        return np.concatenate(widths), np.concatenate(reads)

    def _goal(self, width: int) -> int:
        return len(self._binding.goal(labels(width))) + len(self._binding.goal_separator)

    def _closing(self, last: bool) -> int:
        return len(self._binding.forced_close) + len(self._binding.separator_after(last))

    def _block(self, block: Sequence[Shape], known: int) -> tuple[Array, Array]:
        self.goals += self._goal(len(block))
        self.branches += len(block)
        known += self._goal(len(block))
        headers = [len(self._binding.path_header(label)) for label in labels(len(block))]
        strands = [
            self.strand(branch, known, header, self._closing(branch is block[-1]))
            for branch, header in zip(block, headers, strict=True)
        ]
        longest = max(len(width) for width, _ in strands)
        width, read = np.zeros(longest), np.zeros(longest)
        for one, seen in strands:
            width[: len(one)] += one
            read[: len(one)] += seen
        return width, read


def labels(width: int) -> list[str]:
    """What a forced shape calls the branches of a block."""
    return [str(ordinal) for ordinal in range(1, width + 1)]


def block(width: int, length: int, before: int = BEFORE, after: int = AFTER) -> Shape:
    """The shape of an answer with one block of equal branches."""
    return [before, [[length]] * width, after]


def of_tokens(tokens: int, width: int, binding: Binding, prompt: int) -> Workload:
    """An answer of (nearly) so many tokens in one block of `width` branches; without a block if that is 1.

    Raises:
        RunError: if so few tokens can't be so wide.
    """
    if width == 1:
        return workload(f"{tokens} tokens", [tokens], binding, prompt)
    written = workload("", block(width, 1), binding, prompt).tokens - width
    length = (tokens - written) // width
    if length < 1:
        raise RunError(f"{tokens} tokens are too few for {width} branches: tags alone take {written}")
    return workload(f"{tokens} tokens, {width} branches", block(width, length), binding, prompt)


def recorded(files: Sequence[str], number: int, scale: float, binding: Binding, prompt: int) -> list[Workload]:
    """The shapes of recorded answers with blocks, evenly drawn from all there are.

    Args:
        number: how many.
        scale: what lengths are multiplied by, so that long answers fit a small model; widths and nesting stay.

    Raises:
        RunError: if a file holds no answer, or none holds a block.
    """
    found = []
    for file in files:
        records = readable(file)
        if not records:
            raise RunError(f"{file}: holds no answer")
        shapes = [(record.id, shape_in(parse_text(record.text), scale)) for record in records]
        found += [(name, shape) for name, shape in shapes if len(shape) > 1]
    if not found:
        raise RunError(f"{', '.join(files)}: no answer has a block")
    chosen = found[:: max(1, len(found) // number)][:number]
    return [workload(name, shape, binding, prompt) for name, shape in chosen]


def shape_in(transcript: Transcript, scale: float = 1.0) -> Shape:
    """The shape of a recorded answer. Its tags count as sampled, and come once more when the shape is played."""
    return _shape_of(transcript.blocks, 0, len(transcript), scale)


def _shape_of(blocks: list[Block], start: int, end: int, scale: float) -> Shape:
    shape: list[int | list[Shape]] = []
    for found in parallel_blocks(blocks):
        if len(found.paths) < 2:
            continue
        shape.append(_scaled(found.paths[0].start - start, scale))
        shape.append([_shape_of(path.blocks, path.start, path.end, scale) for path in found.paths])
        start = found.paths[-1].end
    return [*shape, _scaled(end - start, scale)]


def _scaled(tokens: int, scale: float) -> int:
    return max(1, round(tokens * scale))
