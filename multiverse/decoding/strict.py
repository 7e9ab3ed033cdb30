"""Strict mode: which tags a sampler may choose next, also where there is no controller, as in a host's workers."""

from __future__ import annotations

from dataclasses import dataclass

from multiverse.decoding.budgets import Limits
from multiverse.structure.binding import Binding
from multiverse.structure.dialects import Tag
from multiverse.structure.grammar import Frame, Grammar


def allowed_tags(grammar: Grammar, frame: Frame, limits: Limits) -> frozenset[Tag]:
    """The tags that keep what a strand writes well formed, and its blocks within `limits`."""
    tags = grammar.allowed(frame)
    if frame.outlines >= limits.max_branches:
        tags -= {Tag.OUTLINE_OPEN}
    if frame.depth >= limits.max_depth:
        tags -= {Tag.BLOCK_OPEN} if grammar.dialect.block else {Tag.GOAL_OPEN}
    return tags


@dataclass(frozen=True)
class StrictStart:
    """Where in the grammar a request begins to sample; plain data that travels to workers.

    Attributes:
        outputs: how many tokens that the host counts as sampled come before.
    """

    frame: Frame
    max_branches: int
    max_depth: int
    outputs: int = 0


class StrictMask:
    """Follows one sequence token by token and says which tags it must not go on with.

    Args:
        binding: the dialect, bound to the model's tokenizer.
        start: the state before the first token.
    """

    def __init__(self, binding: Binding, start: StrictStart) -> None:
        self._binding = binding
        self._grammar = Grammar(binding.dialect)
        self._limits = Limits(max_branches=start.max_branches, max_depth=start.max_depth)
        self._frame = start.frame
        self.banned: list[int] = []
        self._update()

    def accept(self, token: int) -> None:
        """Go one token further. `banned` are then the ids of the tags that must not follow."""
        tag = self._binding.tags.get(token)
        after = None if tag is None else self._grammar.advance(self._frame, tag)
        if after is not None:
            self._frame = after
            self._update()

    def _update(self) -> None:
        allowed = allowed_tags(self._grammar, self._frame, self._limits)
        self.banned = [token for tag, token in self._binding.ids.items() if tag not in allowed]
