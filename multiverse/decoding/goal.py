"""A goal that was just closed: which block it asks for, and what the engine will write for it."""

from __future__ import annotations

from functools import cached_property

from multiverse.decoding.budgets import Limits
from multiverse.structure.binding import Binding
from multiverse.structure.reasons import Reason


class Goal:
    """The block that a goal asks for. Nothing is decided yet, and a wide one costs nothing until its headers are read.

    Args:
        binding: the dialect, bound to the model's tokenizer.
        labels: of its branches, all distinct.
        inject: ids that the engine writes behind what was sampled, before it forks.
        fork: position of the first token of every branch.
    """

    def __init__(self, binding: Binding, labels: list[str], inject: tuple[int, ...], fork: int) -> None:
        self.labels, self.inject, self.fork = labels, inject, fork
        self._binding = binding

    @cached_property
    def headers(self) -> list[tuple[int, ...]]:
        """By branch, the ids with which the engine opens it."""
        return [self._binding.path_header(label) for label in self.labels]

    @cached_property
    def reserve(self) -> int:
        """Tokens that the engine itself will write for the block, from `inject` to the conclusion header."""
        binding, headers = self._binding, self.headers
        closing = len(headers) * len(binding.forced_close)
        separators = (len(headers) - 1) * len(binding.path_separator) + len(binding.last_separator)
        return len(self.inject) + sum(map(len, headers)) + closing + separators + len(binding.conclusion_header)

    def misfit(self, depth: int, limits: Limits) -> Reason | None:
        """Why no block of this width is forked at `depth`, whatever the request has left; `None` if it may be."""
        if len(self.labels) < 2:
            return Reason.SINGLE_OUTLINE if self.labels else Reason.NO_OUTLINE
        if len(self.labels) > limits.max_branches:
            return Reason.TOO_WIDE
        if depth > limits.max_depth or (depth > 1 and not self._binding.dialect.nesting):
            return Reason.TOO_DEEP
        return None
