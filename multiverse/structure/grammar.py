"""The grammar of blocks as an immutable state machine (SEMANTICS sections 1 and 4).

The state is a `Frame`, a linked list with one link per open block; advancing returns another one, so a fork costs
nothing. A tag that the grammar does not expect is ordinary text: `advance` answers `None` and the state stays.
This module knows neither tokens nor texts, only tags.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from multiverse.structure.dialects import Dialect, Tag

MAX_NESTING = 100
"""Blocks nested deeper are ordinary text, so that recursion over a tree is bounded whatever a model writes."""


class Phase(IntEnum):
    """Where in a block a sequence stands. The first four are bodies: they hold text and further blocks."""

    ROOT = 0
    BRANCH = 1
    PATH = 2
    CONCLUSION = 3
    OPENED = 4
    GOAL = 5
    OUTLINE = 6
    MAPPED = 7
    CONCLUDED = 8
    CLOSED = 9


BODIES = (Phase.ROOT, Phase.BRANCH, Phase.PATH, Phase.CONCLUSION)


class Frame(NamedTuple):
    """One state of the grammar.

    Attributes:
        phase: where in the innermost open block (or outside of any) the sequence stands.
        parent: the state to return to when that block ends; `None` at the bottom.
        depth: number of open blocks around this place.
        outlines: outlines opened so far in the innermost block.
        paths: paths closed so far in the innermost block.
    """

    phase: Phase
    parent: Frame | None = None
    depth: int = 0
    outlines: int = 0
    paths: int = 0


Step = Callable[[Frame], Frame | None]


def _move(phase: Phase, outlines: int = 0, paths: int = 0) -> Step:
    """A step within the same block, which may count an outline or a path."""

    def step(frame: Frame) -> Frame:
        return Frame(phase, frame.parent, frame.depth, frame.outlines + outlines, frame.paths + paths)

    return step


def _pop(frame: Frame) -> Frame | None:
    """The end of the block."""
    return frame.parent


class Grammar:
    """The transitions that one dialect allows."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._steps: dict[tuple[Phase, Tag], Step] = {}
        self._allow_blocks()
        self._allow_goal()
        self._allow_paths()
        self._allow_conclusion()

    def root(self) -> Frame:
        """The state before the first token of a sequence."""
        return Frame(Phase.ROOT)

    def branch(self, depth: int) -> Frame:
        """The state right after the path-open tag of a branch that the engine opened, `depth` blocks deep."""
        return Frame(Phase.BRANCH, depth=depth)

    def advance(self, frame: Frame, tag: Tag) -> Frame | None:
        """The state after `tag`, or `None` if `tag` is ordinary text here."""
        step = self._steps.get((frame.phase, tag))
        if step is not None:
            return step(frame)
        if frame.phase is Phase.CONCLUDED and frame.parent is not None:
            return self.advance(frame.parent, tag)  # the model left out block-close: the block is over all the same
        return None

    def close_path(self, frame: Frame) -> Frame:
        """The parent's state after one of the branches it was forked into: `frame` as if it had written the path."""
        after = self._steps[Phase.PATH, Tag.PATH_CLOSE](frame._replace(phase=Phase.PATH))
        return after or frame

    def conclude(self, frame: Frame) -> Frame:
        """The parent's state after the conclusion header that the engine wrote at the join."""
        if self.dialect.conclusion:
            return self.advance(frame, Tag.CONCLUSION_OPEN) or frame
        if self.dialect.block and not self.dialect.engine_closes:
            return frame._replace(paths=frame.outlines)  # the model has block-close to write
        return frame.parent or frame

    def allowed(self, frame: Frame) -> frozenset[Tag]:
        """The tags that well-formed output may go on with: what strict mode lets the sampler choose from.

        Stricter than `advance`, which also follows a model through the mistakes from which it can recover.
        """
        tags = {tag for phase, tag in self._steps if phase == frame.phase}
        if frame.depth >= (MAX_NESTING if self.dialect.nesting else 1):
            tags -= {Tag.BLOCK_OPEN, Tag.GOAL_OPEN} if frame.phase in BODIES else set()
        if frame.phase is Phase.OPENED:
            tags.discard(Tag.BLOCK_CLOSE)
        if frame.phase in (Phase.GOAL, Phase.OUTLINE) and not frame.outlines:
            tags.discard(Tag.GOAL_CLOSE)
        if frame.phase is Phase.MAPPED:
            tags &= {Tag.PATH_OPEN} if frame.paths < frame.outlines else {Tag.CONCLUSION_OPEN, Tag.BLOCK_CLOSE}
            if self.dialect.conclusion:
                tags.discard(Tag.BLOCK_CLOSE)
        return frozenset(tags)

    def _allow_blocks(self) -> None:
        first = (Tag.BLOCK_OPEN, Phase.OPENED) if self.dialect.block else (Tag.GOAL_OPEN, Phase.GOAL)
        tag, phase = first

        def push(frame: Frame) -> Frame | None:
            return Frame(phase, frame, frame.depth + 1) if frame.depth < MAX_NESTING else None

        for body in BODIES:
            self._steps[body, tag] = push

    def _allow_goal(self) -> None:
        steps = self._steps
        if self.dialect.block:
            steps[Phase.OPENED, Tag.GOAL_OPEN] = _move(Phase.GOAL)
            steps[Phase.OPENED, Tag.BLOCK_CLOSE] = _pop
        steps[Phase.GOAL, Tag.OUTLINE_OPEN] = _move(Phase.OUTLINE, outlines=1)
        steps[Phase.GOAL, Tag.GOAL_CLOSE] = _move(Phase.MAPPED)
        if Tag.OUTLINE_CLOSE in self.dialect.tags:
            steps[Phase.OUTLINE, Tag.OUTLINE_CLOSE] = _move(Phase.GOAL)
        else:
            steps[Phase.OUTLINE, Tag.OUTLINE_OPEN] = _move(Phase.OUTLINE, outlines=1)
            steps[Phase.OUTLINE, Tag.GOAL_CLOSE] = _move(Phase.MAPPED)

    def _allow_paths(self) -> None:
        steps = self._steps
        close = _move(Phase.MAPPED, paths=1)

        def close_last(frame: Frame) -> Frame | None:
            return frame.parent if frame.paths + 1 >= frame.outlines else close(frame)

        steps[Phase.MAPPED, Tag.PATH_OPEN] = _move(Phase.PATH)
        nothing_follows = not self.dialect.block and not self.dialect.conclusion
        steps[Phase.PATH, Tag.PATH_CLOSE] = close_last if nothing_follows else close
        steps[Phase.BRANCH, Tag.PATH_CLOSE] = _move(Phase.CLOSED)

    def _allow_conclusion(self) -> None:
        steps, dialect = self._steps, self.dialect
        if dialect.block:
            steps[Phase.MAPPED, Tag.BLOCK_CLOSE] = _pop
            steps[Phase.CONCLUDED, Tag.BLOCK_CLOSE] = _pop
        if not dialect.conclusion:
            return
        closable = dialect.block or Tag.CONCLUSION_CLOSE in dialect.tags
        steps[Phase.MAPPED, Tag.CONCLUSION_OPEN] = _move(Phase.CONCLUSION) if closable else _pop
        if Tag.CONCLUSION_CLOSE in dialect.tags:
            after = _move(Phase.CONCLUDED) if dialect.block else _pop
            steps[Phase.CONCLUSION, Tag.CONCLUSION_CLOSE] = after
        elif dialect.block:
            steps[Phase.CONCLUSION, Tag.BLOCK_CLOSE] = _pop
