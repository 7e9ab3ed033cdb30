"""Shapes of answers: how wide they are and how much KV they read, step by step along the critical path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multiverse.errors import RunError
from multiverse.evaluation.plan.machine import Array
from multiverse.harness.records import readable
from multiverse.structure.layout import layout
from multiverse.structure.parser import parse_text
from multiverse.structure.tree import Transcript

BINS = 64
"""Pieces that the longest critical path is cut into; within one, a shape is taken for constant."""


@dataclass(frozen=True)
class Shape:
    """One answer, per step of its critical path.

    Attributes:
        width: tokens computed in the step.
        read: KV tokens read in the step, over all branches.
        tokens: of the answer, all branches together.
        prompt: tokens before the answer.
    """

    width: Array
    read: Array
    tokens: int
    prompt: int

    def runs(self) -> list[list[float]]:
        """The shape in short: `[steps, width, read]` of every run of steps with one width, in each of which `read`
        grows by `width`."""
        grows = (np.diff(self.width) == 0) & (np.diff(self.read) == self.width[:-1])
        starts = [0, *(np.nonzero(~grows)[0] + 1).tolist()]
        ends = [*starts[1:], len(self.width)]
        return [[e - s, float(self.width[s]), float(self.read[s])] for s, e in zip(starts, ends, strict=True)]

    @classmethod
    def from_runs(cls, runs: Sequence[Sequence[float]], prompt: int) -> Shape:
        """What `runs` gave."""
        width = np.concatenate([np.full(int(steps), wide) for steps, wide, _ in runs])
        read = np.concatenate([first + wide * np.arange(int(steps)) for steps, wide, first in runs])
        return cls(width, read, int(width.sum()), prompt)

    def sequential(self) -> Shape:
        """The same tokens, one after the other."""
        return Shape(np.ones(self.tokens), self.prompt + np.arange(self.tokens, dtype=float), self.tokens, self.prompt)


def shape_of(transcript: Transcript, prompt: int) -> Shape:
    """The shape of an answer behind a prompt of so many tokens."""
    laid = layout(transcript)
    steps = laid.critical_path()
    width, read = np.zeros(steps), np.zeros(steps)
    for segment in laid.segments:
        count = segment.end - segment.start
        at = slice(segment.position, segment.position + count)
        seen = sum(end - start for start, end in segment.visible())
        width[at] += 1
        read[at] += prompt + seen + np.arange(count)
    kept = width > 0  # a path of an answer that was cut off may leave a gap
    return Shape(width[kept], read[kept], len(transcript), prompt)


def shapes_in(files: Sequence[str], prompt: int) -> list[Shape]:
    """The shapes of recorded answers, with approximate token counts.

    Raises:
        RunError: if a file holds none.
    """
    shapes = []
    for file in files:
        found = [record for record in readable(file) if record.text]
        if not found:
            raise RunError(f"{file}: holds no answer")
        shapes += [shape_of(parse_text(record.text), prompt) for record in found]
    return shapes


def synthetic(tokens: int, degree: float, width: int, prompt: int, rounds: int = 4) -> Shape:
    """An answer of blocks of equal branches with sequential text between them.

    Args:
        degree: tokens / critical path; at most `width`.
        width: branches of each block.
        rounds: how many blocks.

    Raises:
        RunError: if there is no such answer.
    """
    if not 1 <= degree <= width:
        raise RunError(f"a parallel degree of {degree} needs blocks of at least that many branches, not {width}")
    branch = round(tokens * (1 - 1 / degree) / max(1, width - 1) / rounds)
    between = tokens // rounds - width * branch
    widths, reads, known = [], [], float(prompt)
    for _ in range(rounds):
        grown: Array = np.arange(max(0, between), dtype=float)
        widths += [np.ones(len(grown)), np.full(branch, float(width))]
        reads += [known + grown, width * (known + len(grown) + np.arange(branch, dtype=float))]
        known += len(grown) + width * branch
    total = np.concatenate(widths)
    return Shape(total, np.concatenate(reads), int(total.sum()), prompt)


@dataclass(frozen=True)
class Binned:
    """Shapes as arrays `[shapes, bins]`; behind its end a shape has width 0.

    Attributes:
        steps: steps of a whole bin.
        bins: `[shapes]`, bins of each.
        last: `[shapes]`, steps of the last one.
        kv: `[shapes]`, tokens in the KV cache at the end.
    """

    width: Array
    read: Array
    steps: int
    bins: NDArray[np.int64]
    last: Array
    kv: Array
    tokens: Array
    prompt: Array


def binned(shapes: Iterable[Shape]) -> Binned:
    """Cut shapes into bins of the same number of steps."""
    shapes = list(shapes)
    lengths = np.array([len(shape.width) for shape in shapes])
    steps = max(1, int(np.median(lengths)) // BINS)
    bins = -(-lengths // steps)
    width, read = np.zeros((len(shapes), bins.max())), np.zeros((len(shapes), bins.max()))
    for row, shape in enumerate(shapes):
        starts = np.arange(0, len(shape.width), steps)
        counts: Array = np.diff(np.append(starts, len(shape.width)))
        width[row, : len(starts)] = np.add.reduceat(shape.width, starts) / counts
        read[row, : len(starts)] = np.add.reduceat(shape.read, starts) / counts
    tokens, prompt = (np.array([getattr(s, n) for s in shapes], dtype=float) for n in ("tokens", "prompt"))
    return Binned(width, read, steps, bins, lengths - (bins - 1.0) * steps, tokens + prompt, tokens, prompt)
