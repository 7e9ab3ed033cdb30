"""Answers whose shape is given: how long, how wide and how deep, whatever the model says. For benchmarks.

A shape is a list that alternates between numbers and blocks and begins and ends with a number: `[8, [[64], [64]], 16]`
samples 8 tokens, forks two branches of 64 tokens each, joins them and samples 16 more. A block is a list of two shapes
or more, so shapes nest. Only the structure is forced: a `ShapedController` writes the goal of a block and forks, closes
branches and ends the request when the numbers say so. Tokens are sampled as ever. Hosts need nothing for it, for a
fork may inject what it likes and a branch may be closed by its host.

A tag that is sampled means what it always does, so whoever wants the exact shape bans tags and end-of-sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from multiverse.decoding.actions import Action
from multiverse.decoding.budgets import LARGEST, UNBOUNDED, FinishReason
from multiverse.decoding.controller import Controller
from multiverse.decoding.goal import Goal
from multiverse.decoding.strand import Status, Strand
from multiverse.errors import OptionError, shown
from multiverse.structure.binding import Binding

Shape: TypeAlias = Sequence[Any]
"""Numbers of tokens at even places, blocks (lists of shapes) at odd ones."""
DEEPEST = 16
"""Levels of nesting that a shape may have."""


def check_shape(shape: Any, most: int, depth: int = 0) -> None:
    """Refuse what is no shape, and blocks of more than `most` branches.

    Raises:
        OptionError: naming what is wrong.
    """
    if depth > DEEPEST:
        raise OptionError(f"shape must not nest blocks deeper than {DEEPEST}")
    if not isinstance(shape, list | tuple) or len(shape) % 2 == 0:
        raise OptionError(f"shape must be a list like [8, [[64], [64]], 16], got {shown(shape)}")
    for number in shape[::2]:
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= LARGEST:
            allowed = f"numbers of tokens >= 1 and <= {LARGEST}"
            raise OptionError(f"shape must have {allowed} at even places, got {shown(number)}")
    for block in shape[1::2]:
        if not isinstance(block, list | tuple) or len(block) < 2:
            raise OptionError(f"shape must have lists of two shapes or more at odd places, got {shown(block)}")
        if len(block) > most:
            raise OptionError(f"shape must not have blocks of more than max_branches, {most}, got one of {len(block)}")
        for branch in block:
            check_shape(branch, most, depth + 1)


def sampled_tokens(shape: Shape) -> int:
    """Tokens that a shape samples; those that the controller writes come on top."""
    inside = (sampled_tokens(branch) for block in shape[1::2] for branch in block)
    return sum(shape[::2]) + sum(inside)


class _Plan:
    """What one strand has yet to do: sample `left` tokens, then what `rest` says."""

    def __init__(self, shape: Shape) -> None:
        self.left: int = shape[0]
        self.rest = list(shape[1:])


class ShapedController(Controller):
    """A controller that decides by a shape.

    A block that can't be forked goes on sequentially, with as many tokens as its branches have; the reason is recorded
    as always.
    """

    def __init__(self, binding: Binding, shape: Shape, *arguments: Any, **options: Any) -> None:
        """Begin an answer of the given shape, with `[8, [[64], [64]], 16]` after 8 sampled tokens and so on.

        Args:
            binding: the dialect, bound to the model's tokenizer.
            shape: numbers of sampled tokens at even places, blocks at odd ones, as `check_shape` lets pass; it is not
                checked again, and not changed. Tokens that the engine writes (goals, headers, tags) are not counted in
                it, but they are in the limits, which end the answer earlier if they are lower.
            arguments, options: of `Controller`, in its order: `limits`, `prompt`, and what goes by name.
        """
        super().__init__(binding, *arguments, **options)
        self._plans = {self.root.key: _Plan(shape)}

    def accept(self, strand: Strand, token: int) -> Sequence[Action]:
        """Take a token that was sampled for `strand`, as `Controller.accept` does; its place in the shape decides."""
        plan = self._plans.get(strand.key)
        counts = strand.status is Status.RUNNING and plan is not None
        actions = super().accept(strand, token)
        if not counts or plan is None or strand.status is not Status.RUNNING or self.finish_reason is not None:
            return actions
        plan.left -= 1
        return actions if plan.left else [*actions, *self._go_on(strand, plan)]

    def room(self) -> int:
        """How many tokens its strands may sample, all together, before a limit or the shape can end any of them."""
        running = (strand.key for strand in self.root.walk() if strand.status is Status.RUNNING)
        return min(super().room(), *(self._plans[key].left - 1 for key in running if key in self._plans), UNBOUNDED)

    def extend(self, strand: Strand, tokens: Sequence[int]) -> None:
        """As `accept` of each of `tokens`, see there and `room`."""
        super().extend(strand, tokens)
        if (plan := self._plans.get(strand.key)) is not None:
            plan.left -= len(tokens)

    def _go_on(self, strand: Strand, plan: _Plan) -> list[Action]:
        if not plan.rest:
            root = strand.parent is None
            return self._finish(FinishReason.LENGTH) if root else self._close(strand, FinishReason.LENGTH)
        block, plan.left, *plan.rest = plan.rest
        actions = self._fork_into(strand, block)
        if strand.status is Status.RUNNING:  # it was not forked
            plan.left += sum(map(sampled_tokens, block))
        return actions

    def _fork_into(self, strand: Strand, block: Sequence[Shape]) -> list[Action]:
        """Write the goal of a block and fork, if `strand` is where the grammar allows a block and limits allow it."""
        labels = [str(ordinal) for ordinal in range(1, len(block) + 1)]
        goal, before = self.binding.goal(labels), strand.frame
        for token in goal:
            if (tag := self.binding.tag(token)) is not None:
                after = self.grammar.advance(strand.frame, tag)
                if after is None:
                    strand.frame = before
                    return []
                strand.frame = after
        inject = (*goal, *self.binding.goal_separator)
        fork = strand.position + len(inject if self._advances else goal)
        asked = Goal(self.binding, labels, inject, fork)
        reason = self._refusal(strand, asked)
        if reason is not None:
            strand.frame = before
            return self._fall_back(strand, reason)
        actions = self._branches.fork(strand, asked)
        for child, branch in zip(strand.forks[-1][1], block, strict=True):
            self._plans[child.key] = _Plan(branch)
        return actions
