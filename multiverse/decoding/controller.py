"""One controller per request: a token goes in, strands come out for the host to bring about (SEMANTICS 2, 4 and 5).

Both hosts and the oracle drive it. It knows token ids, positions and budgets; it knows no text, no tensor, no KV.
The host keeps a row per running strand, feeds every sampled token to `accept`, and looks at the strands: those that run
have to be computed, those that are closed to be joined by their parent. The actions that `accept` returns are the
journal of what was decided; while there are none, the strand just goes on. A strand that isn't running ignores tokens,
which is what a token sampled one step late under asynchronous scheduling needs. No sequence of tokens raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from multiverse.decoding.actions import Action, Fallback, Finish
from multiverse.decoding.budgets import FinishReason, Ledger, Limits
from multiverse.decoding.goal import Goal
from multiverse.decoding.map_reduce import MapReduce
from multiverse.decoding.prompt import Prompt
from multiverse.decoding.strand import Status, Strand
from multiverse.decoding.strict import allowed_tags
from multiverse.structure.binding import Binding
from multiverse.structure.dialects import Tag
from multiverse.structure.grammar import Grammar, Phase
from multiverse.structure.layout import Separators
from multiverse.structure.lexer import branch_labels
from multiverse.structure.reasons import Reason

Admit = Callable[[Strand, Sequence[str]], Reason | None]
"""Asked before a fork: may `strand` fork into branches with these labels? The reason if not."""


class Controller:
    """The life of one request.

    Attributes:
        root: the strand that the request starts and ends with.
        prompt: what came before it.
        ledger: the tokens used so far.
        finish_reason: why the request ended; `None` while it lives.

    Args:
        binding: the dialect, bound to the model's tokenizer.
        limits: budgets and caps.
        prompt: ids of the prompt, whose tags say what blocks it holds; or a prompt that knows.
        separators: `overlap` (as models are trained) or `advance` (as the released engine decoded, and always where
            the joined text is prefilled).
        admit: the host's own say before a fork, for instance `Reason.KV_CAPACITY`.
        ignore_eos: treat end-of-sequence as text, as benchmarks do.
    """

    def __init__(
        self,
        binding: Binding,
        limits: Limits | None = None,
        prompt: Sequence[int] | Prompt = (),
        *,
        separators: Separators = "overlap",
        admit: Admit | None = None,
        ignore_eos: bool = False,
    ) -> None:
        self.binding = binding
        self.limits = limits or Limits()
        self.separators: Separators = "advance" if binding.dialect.join == "prefill" else separators
        self.admit = admit
        self.grammar = Grammar(binding.dialect)
        self.prompt = prompt if isinstance(prompt, Prompt) else Prompt(prompt, binding, self.separators)
        self.ledger = Ledger(self.limits.tokens_for(len(self.prompt.ids)))
        self.finish_reason: FinishReason | None = None
        self.root = self._make_root()
        self._tags = binding.tags
        self._special = binding.tags.keys() | (() if ignore_eos else binding.eos)
        self._advances = self.separators == "advance"
        self._branches = MapReduce(binding, self.grammar, self.limits, self.ledger, self._advances)

    def begin(self) -> list[Action]:
        """Call once, before the first token is sampled: a prompt that ends with a goal forks at once."""
        goal = self.prompt.open_goal
        if goal is None:
            return self._check_limits(self.root, [])
        behind = 0 if self._advances else goal  # the first token of a path overlaps the first separator
        self.root.position_end -= behind
        actions = self._close_goal(self.root, goal)
        if not self.root.forks:
            self.root.position_end += behind
        return self._check_limits(self.root, actions)

    def accept(self, strand: Strand, token: int) -> Sequence[Action]:
        """Take a token that was sampled for `strand`.

        Returns:
            what was decided, in order; empty if the strand goes on, or if it isn't running and the token was ignored.
        """
        if strand.status is not Status.RUNNING:
            return ()
        if token not in self._special:  # the common case; nothing below is on the hot path
            strand.tokens.append(token)
            strand.position += 1
            strand.kv_length += 1
            ledger = self.ledger
            ledger.used += 1
            if ledger.used + ledger.reserved >= ledger.limit or strand.position >= strand.position_end:
                return self._check_limits(strand, [])
            return ()
        tag = self._tags.get(token)
        if tag is None:  # the end of a turn, which is no part of a branch
            return self.end(strand, FinishReason.STOP, token if strand.parent is None else None)
        if tag is Tag.PATH_CLOSE and strand.frame.phase is Phase.BRANCH:
            return self._close(strand, FinishReason.PATH_CLOSE, token)
        strand.write((token,))
        self.ledger.used += 1
        actions = self._follow(strand, tag)
        return self._check_limits(strand, actions) if strand.status is Status.RUNNING else actions

    def room(self) -> int:
        """How many tokens its strands may sample, all together, before a limit can end any of them."""
        if self.finish_reason is not None:
            return 0
        running = (strand for strand in self.root.walk() if strand.status is Status.RUNNING)
        return max(0, min([self.ledger.left, *(strand.position_end - strand.position for strand in running)]) - 1)

    def extend(self, strand: Strand, tokens: Sequence[int]) -> None:
        """As `accept` of each of `tokens` of a running strand, none of them deciding, not more than there is `room`."""
        count = len(tokens)
        strand.tokens += tokens
        strand.position += count
        strand.kv_length += count
        self.ledger.used += count

    def end(self, strand: Strand, reason: FinishReason, token: int | None = None) -> list[Action]:
        """End `strand` because the host says so: a stop string, a limit of its own. The root ends the request.

        Args:
            token: what was sampled last, if it is part of the strand; it decides nothing, whatever tag it is.
        """
        if self.finish_reason is not None:
            return []
        running = strand.status is Status.RUNNING
        if token is not None and running:
            if strand.frame.phase is Phase.BRANCH and self._tags.get(token) is Tag.PATH_CLOSE:
                return self._close(strand, reason, token)
            strand.write((token,))
            self.ledger.used += 1
        if strand.parent is None:
            return self._finish(reason)
        return self._close(strand, reason) if running else []

    def hold(self, strand: Strand, offset: int) -> None:
        """Note that what `strand` has from `offset` on may yet be taken back; nothing else may happen to it first."""
        strand.held = max(0, len(strand.tokens) - offset)

    def take_back(self, strand: Strand, offset: int, head: tuple[int, ...] = ()) -> None:
        """Take from a running branch what it has sampled from `offset` on; the engine writes `head` instead, if any.

        `head` must leave a token to the other strands.
        """
        assert strand.status is Status.RUNNING, strand
        taken = strand.cut(offset)
        strand.inject(head)
        self.ledger.used += len(head) - taken
        self.ledger.injected += len(head)
        assert not self.ledger.exhausted, self.ledger.used

    def abort(self) -> list[Action]:
        """End the request and all its strands now."""
        return [] if self.finish_reason is not None else self._finish(FinishReason.ABORT)

    def allowed(self, strand: Strand) -> frozenset[int]:
        """Ids of the tags that strict mode lets `strand` sample next."""
        tags = allowed_tags(self.grammar, strand.frame, self.limits)
        return frozenset(self.binding.ids[tag] for tag in tags)

    def _make_root(self) -> Strand:
        root = Strand((), "", None, self.prompt.frame)
        root.outlines = list(self.prompt.outlines)
        root.position, root.kv_length = self.prompt.next_position, len(self.prompt.ids)
        root.status = Status.RUNNING
        root.deltas = [root.position_delta]
        if self.limits.max_critical_path is not None:
            root.position_end = root.position + self.limits.max_critical_path
        return root

    def _follow(self, strand: Strand, tag: Tag) -> list[Action]:
        """Follow the grammar over a tag that was just written."""
        after = self.grammar.advance(strand.frame, tag)
        if after is None:
            return self._fall_back(strand, Reason.STRAY_GOAL_CLOSE) if tag is Tag.GOAL_CLOSE else []
        strand.frame = after
        if tag is Tag.GOAL_OPEN:
            strand.outlines = []
        elif tag is Tag.OUTLINE_OPEN:
            strand.outlines.append(len(strand.tokens))
        elif tag is Tag.GOAL_CLOSE:
            return self._close_goal(strand)
        return []

    def _close_goal(self, strand: Strand, separators: int = 0) -> list[Action]:
        """Decide at goal-close. `separators` of them are already there, if the goal was closed in the prompt."""
        labels = branch_labels([self.prompt.label(outline, strand.tokens) for outline in strand.outlines])
        inject = self.binding.goal_separator[separators:]
        fork = strand.position + len(inject) if self._advances else strand.position - separators
        goal = Goal(self.binding, labels, inject, fork)
        reason = self._refusal(strand, goal)
        if reason is not None:
            return self._fall_back(strand, reason, 1 + separators)
        return self._branches.fork(strand, goal)

    def _refusal(self, strand: Strand, goal: Goal) -> Reason | None:
        """Why the goal can't be forked, or `None`. Nothing has been changed yet."""
        reason = goal.misfit(strand.frame.depth, self.limits)
        if reason is not None:
            return reason
        if goal.fork + max(map(len, goal.headers)) >= self._branches.position_end(strand):
            return Reason.TOKEN_BUDGET
        if not self.ledger.affords(goal.reserve + len(goal.labels)):
            by_context = self.limits.bound_by_context(len(self.prompt.ids))
            return Reason.CONTEXT_LENGTH if by_context else Reason.TOKEN_BUDGET
        return self.admit(strand, goal.labels) if self.admit else None

    def _fall_back(self, strand: Strand, reason: Reason, back: int = 1) -> list[Action]:
        """Note that the goal closed `back` tokens ago goes on sequentially."""
        strand.fallbacks[len(strand.tokens) - back] = reason
        return [Fallback(strand, reason)]

    def _check_limits(self, strand: Strand, actions: list[Action]) -> list[Action]:
        """End the request, or `strand`, if a budget is used up."""
        if self.finish_reason is not None:
            return actions
        if self.ledger.exhausted:  # what was reserved pays for closing every branch
            self._branches.close_all(self.root, FinishReason.LENGTH)
            return actions + self._finish(FinishReason.LENGTH)
        if strand.status is Status.RUNNING and strand.position >= strand.position_end:
            return actions + self.end(strand, FinishReason.LENGTH)
        return actions

    def _close(self, strand: Strand, reason: FinishReason, sampled: int | None = None) -> list[Action]:
        """End a running branch. If its parent goes on then, it may have reached a limit by what was joined."""
        assert strand.parent is not None
        return self._check_limits(strand.parent, self._branches.close(strand, reason, sampled))

    def _finish(self, reason: FinishReason) -> list[Action]:
        self.finish_reason = reason
        for strand in self.root.walk():
            if strand.status is not Status.CLOSED:
                strand.status, strand.finish_reason, strand.held = Status.CLOSED, reason, 0
        return [Finish(reason)]
