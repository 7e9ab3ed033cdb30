"""What is asked for: answers of given shapes, made up or taken from recorded answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from multiverse.binding import Binding
from multiverse.document import to_transcript
from multiverse.errors import RunError
from multiverse.evaluation.plan.shapes import Shape as Steps
from multiverse.evaluation.plan.shapes import shape_of
from multiverse.layout import parallel_blocks
from multiverse.parser import parse_text
from multiverse.records import Record, read_records
from multiverse.shaped import Shape, ShapedController
from multiverse.strand import Status
from multiverse.tree import Block, Transcript

BEFORE, AFTER = 4, 16
"""Tokens before and after the block of an answer with one block."""


@dataclass(frozen=True)
class Workload:
    """One answer.

    Attributes:
        name: for people.
        shape: as a request gives it.
        steps: what is computed and read at every step of its critical path, the prompt in front of it.
    """

    name: str
    shape: Shape
    steps: Steps

    @property
    def tokens(self) -> int:
        """All of its tokens, those that the engine writes included."""
        return self.steps.tokens

    @property
    def critical_path(self) -> int:
        """Its positions."""
        return len(self.steps.width)

    @property
    def bound(self) -> float:
        """The speed-up that it would have if every position took the same time."""
        return self.tokens / self.critical_path


def workload(name: str, shape: Shape, binding: Binding, prompt: int) -> Workload:
    """The workload of a shape, behind a prompt of so many tokens."""
    return Workload(name, shape, shape_of(_written(shape, binding), prompt))


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
        records = [record for record in read_records(file) if isinstance(record, Record)]
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


def _written(shape: Shape, binding: Binding) -> Transcript:
    """An answer of that shape as a server gives it, of one word only."""
    controller = ShapedController(binding, shape)
    word = next(token for token in range(1 << 30) if binding.tag(token) is None and token not in binding.eos)
    while controller.finish_reason is None:
        for strand in list(controller.root.walk()):
            if strand.status is Status.RUNNING:
                controller.accept(strand, word)
    return to_transcript(controller)
