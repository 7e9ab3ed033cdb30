"""Map, process and reduce: strands fork into branches, branches run when it is their turn, and are joined.

What a block costs in tokens and positions is settled here. When to fork and to close is for the controller to say.
"""

from __future__ import annotations

from collections import deque

from multiverse.decoding.actions import Action, Close, Fork, Join, Start
from multiverse.decoding.budgets import UNBOUNDED, FinishReason, Ledger, Limits
from multiverse.decoding.goal import Goal
from multiverse.decoding.strand import Status, Strand
from multiverse.structure.binding import Binding
from multiverse.structure.grammar import Grammar


class MapReduce:
    """The branches of one request. Writes to strands on behalf of the request's controller, and for nobody else.

    Args:
        binding: the dialect, bound to the model's tokenizer.
        grammar: of the dialect.
        limits: budgets and caps.
        ledger: the request's, which pays for what is written here from what `fork` reserves.
        advances: whether separators take positions of their own (`advance`), or the next token overlaps them.
    """

    def __init__(self, binding: Binding, grammar: Grammar, limits: Limits, ledger: Ledger, advances: bool) -> None:
        self._binding, self._grammar, self._ledger, self._advances = binding, grammar, ledger, advances
        self._most = limits.max_parallel or UNBOUNDED
        self._ready: deque[Strand] = deque()
        self._running = 1

    def position_end(self, strand: Strand) -> int:
        """Where the branches of `strand` have to end, to leave positions for a path-close and for its conclusion."""
        binding = self._binding
        separator = max(len(binding.path_separator), len(binding.last_separator))
        header = len(binding.conclusion_header)
        tail = header + separator if self._advances else max(header, separator)
        return strand.position_end - len(binding.forced_close) - tail

    def fork(self, strand: Strand, goal: Goal) -> list[Action]:
        """Fork `strand` as `goal` says, and start as many branches as may run."""
        self._ledger.reserve(goal.reserve)
        self._inject(strand, goal.inject)
        block, frame, end = len(strand.forks), self._grammar.branch(strand.frame.depth), self.position_end(strand)
        children = tuple(Strand((*strand.key, block, i), label, strand, frame) for i, label in enumerate(goal.labels))
        for child, header in zip(children, goal.headers, strict=True):
            child.header, child.position, child.kv_length = header, goal.fork, strand.kv_length
            child.position_end, child.shift = end, strand.shift
            child.deltas = [child.position_delta]
        strand.forks.append((len(strand.tokens), children))
        strand.open_children = len(children)
        strand.status = Status.PARKED
        self._running -= 1
        self._ready.extendleft(reversed(children))  # depth first, so that the KV of a deep block is joined early
        return [Fork(strand, children), *self._start_ready()]

    def close(self, strand: Strand, reason: FinishReason, sampled: int | None = None) -> list[Action]:
        """End a running branch, with its `sampled` path-close or by writing one; the last of a block joins it."""
        assert strand.parent is not None
        separator = self._binding.separator_after(strand is strand.parent.forks[-1][1][-1])
        closing = self._binding.forced_close
        if sampled is not None:
            self._ledger.release(len(closing))
            self._ledger.used += 1
            strand.write((sampled,))
        self._inject(strand, separator if sampled is not None else (*closing, *separator))
        strand.close = len(strand.tokens) - len(separator) - 1
        strand.join_position = strand.position - (0 if self._advances else len(separator))
        strand.status, strand.finish_reason = Status.CLOSED, reason
        self._running -= 1
        strand.parent.open_children -= 1
        rest = self._start_ready() if strand.parent.open_children else self._join(strand.parent)
        return [Close(strand, reason), *rest]

    def close_all(self, root: Strand, reason: FinishReason) -> None:
        """Start what still waits and close every branch, so that the transcript is well formed. Nobody is told."""
        for strand in self._ready:
            self._start(strand)
        self._ready.clear()
        while root.status is Status.PARKED:
            for strand in list(root.walk()):
                if strand.status is Status.RUNNING and strand.parent is not None:
                    self.close(strand, reason)

    def _inject(self, strand: Strand, tokens: tuple[int, ...]) -> None:
        """Write what was reserved."""
        self._ledger.inject(len(tokens))
        strand.inject(tokens)

    def _start_ready(self) -> list[Action]:
        """Start waiting branches while `max_parallel` allows."""
        actions: list[Action] = []
        while self._ready and self._running < self._most:
            self._running += 1
            actions.append(self._start(self._ready.popleft()))
        return actions

    def _start(self, child: Strand) -> Start:
        self._inject(child, child.header)
        child.status = Status.RUNNING
        return Start(child)

    def _join(self, strand: Strand) -> list[Action]:
        """Let the parent of closed branches go on."""
        children = strand.forks[-1][1]
        joined = max(child.join_position - child.shift for child in children) + strand.shift
        spliced = sum(child.kv_length - strand.kv_length for child in children)
        if self._binding.dialect.join == "prefill":
            ahead = strand.position + spliced - joined
            strand.shift += ahead
            strand.position_end += ahead
            joined += ahead
        strand.kv_length += spliced
        strand.position = joined
        strand.deltas.append(strand.position_delta)
        self._inject(strand, self._binding.conclusion_header)
        strand.frame = self._grammar.conclude(strand.frame)
        strand.status = Status.RUNNING
        self._running += 1
        return [Join(strand), *self._start_ready()]
