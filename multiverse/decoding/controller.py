"""One controller per request: a token goes in, what the host has to do comes out (SEMANTICS sections 2, 4 and 5).

Both hosts and the oracle drive it. It knows token ids, positions and budgets; it knows no text, no tensor, no KV.
The host keeps a row per running strand, feeds every sampled token to `accept`, and carries out the actions. While none
comes, the strand just goes on. A strand that isn't running ignores tokens, which is what a token sampled one step
late under asynchronous scheduling needs. No sequence of tokens raises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from multiverse.decoding.actions import Action, Close, Fallback, Finish, Fork, Join, Start
from multiverse.decoding.budgets import UNBOUNDED, FinishReason, Ledger, Limits
from multiverse.decoding.prompt import Prompt
from multiverse.decoding.strand import Status, Strand
from multiverse.decoding.strict import allowed_tags
from multiverse.structure.binding import Binding
from multiverse.structure.dialects import Tag
from multiverse.structure.grammar import Grammar, Phase
from multiverse.structure.layout import Separators
from multiverse.structure.lexer import LABEL_SCAN, branch_labels
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
        self._eos = frozenset() if ignore_eos else binding.eos
        self._advances = self.separators == "advance"
        self._ready: deque[Strand] = deque()
        self._running = 1
        self._out_of_tokens = False

    def begin(self) -> list[Action]:
        """Call once, before the first token is sampled: a prompt that ends with a goal forks at once."""
        goal = self.prompt.open_goal
        if goal is None:
            return self._check_limits(self.root, [])
        behind = 0 if self._advances else goal  # the first token of a path overlaps the first separator
        self.root.position_end -= behind
        actions = self._map(self.root, goal)
        if not self.root.forks:
            self.root.position_end += behind
        return self._check_limits(self.root, actions)

    def accept(self, strand: Strand, token: int) -> Sequence[Action]:
        """Take a token that was sampled for `strand`.

        Returns:
            what to do, in order; empty if the strand goes on, or if it isn't running and the token was ignored.
        """
        if strand.status is not Status.RUNNING:
            return ()
        tag = self._tags.get(token)
        if tag is None and token not in self._eos:  # the common case; nothing below is on the hot path
            strand.tokens.append(token)
            strand.position += 1
            strand.kv_length += 1
            ledger = self.ledger
            ledger.used += 1
            if ledger.used + ledger.reserved >= ledger.limit or strand.position >= strand.position_end:
                return self._check_limits(strand, [])
            return ()
        if tag is None:
            return self._end_of_sequence(strand, token)
        if tag is Tag.PATH_CLOSE and strand.frame.phase is Phase.BRANCH:
            return self._close(strand, FinishReason.PATH_CLOSE, token)
        strand.write((token,))
        self.ledger.used += 1
        actions = self._follow(strand, tag)
        return self._check_limits(strand, actions) if strand.status is Status.RUNNING else actions

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
        taken = len(strand.tokens) - offset
        assert strand.status is Status.RUNNING, strand
        del strand.tokens[offset:]
        strand.position -= taken
        strand.kv_length -= taken
        strand.fallbacks = {at: reason for at, reason in strand.fallbacks.items() if at < offset}
        strand.write(head)
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

    # --- the strand itself -------------------------------------------------------------------------------------

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
            stray = tag is Tag.GOAL_CLOSE
            return self._fall_back(strand, Reason.STRAY_GOAL_CLOSE) if stray else []
        strand.frame = after
        if tag is Tag.GOAL_OPEN:
            strand.outlines = []
        elif tag is Tag.OUTLINE_OPEN:
            strand.outlines.append(len(strand.tokens))
        elif tag is Tag.GOAL_CLOSE:
            return self._map(strand)
        return []

    def _end_of_sequence(self, strand: Strand, token: int) -> list[Action]:
        if strand.parent is not None:
            return self._close(strand, FinishReason.STOP)
        strand.write((token,))
        self.ledger.used += 1
        return self._finish(FinishReason.STOP)

    def _check_limits(self, strand: Strand, actions: list[Action]) -> list[Action]:
        """End the request, or `strand`, if a budget is used up."""
        if self.finish_reason is not None:
            return actions
        if self.ledger.exhausted:
            return actions + self._run_out()
        if strand.status is Status.RUNNING and strand.position >= strand.position_end:
            return actions + self.end(strand, FinishReason.LENGTH)
        return actions

    # --- map ---------------------------------------------------------------------------------------------------

    def _map(self, strand: Strand, separators: int = 0) -> list[Action]:
        """Decide at goal-close. `separators` of them are already there, if the goal was closed in the prompt."""
        labels = branch_labels([self._label(strand, outline) for outline in strand.outlines])
        inject = self.binding.goal_separator[separators:]
        fork = strand.position + len(inject) if self._advances else strand.position - separators
        reason = self._refusal(strand, labels, inject, fork)
        if reason is not None:
            return self._fall_back(strand, reason, 1 + separators)
        return self._fork(strand, labels, inject, fork)

    def _label(self, strand: Strand, outline: str | int) -> str | None:
        if isinstance(outline, str):
            return outline
        if outline > 0:
            return self.binding.label(strand.tokens, outline)
        begun = self.prompt.ids[len(self.prompt.ids) + outline :]  # in an outline that the prompt left open
        return self.binding.label([*begun, *strand.tokens[:LABEL_SCAN]], 0)

    def _fall_back(self, strand: Strand, reason: Reason, back: int = 1) -> list[Action]:
        """Note that the goal closed `back` tokens ago goes on sequentially."""
        strand.fallbacks[len(strand.tokens) - back] = reason
        return [Fallback(strand, reason)]

    def _refusal(self, strand: Strand, labels: list[str], inject: tuple[int, ...], fork: int) -> Reason | None:
        """Why the goal can't be forked, or `None`. Nothing has been changed yet."""
        depth = strand.frame.depth
        if len(labels) < 2:
            return Reason.SINGLE_OUTLINE if labels else Reason.NO_OUTLINE
        if len(labels) > self.limits.max_branches:
            return Reason.TOO_WIDE
        if depth > self.limits.max_depth or (depth > 1 and not self.binding.dialect.nesting):
            return Reason.TOO_DEEP
        headers = [self.binding.path_header(label) for label in labels]
        if fork + max(map(len, headers)) >= self._branch_position_end(strand):
            return Reason.TOKEN_BUDGET
        if not self.ledger.affords(self._reserve_for(headers, inject) + len(labels)):
            max_tokens, context = self.limits.max_tokens, self.limits.context_length
            bound_by_context = context is not None and (
                max_tokens is None or len(self.prompt.ids) + max_tokens >= context
            )
            return Reason.CONTEXT_LENGTH if bound_by_context else Reason.TOKEN_BUDGET
        return self.admit(strand, labels) if self.admit else None

    def _reserve_for(self, headers: list[tuple[int, ...]], inject: tuple[int, ...]) -> int:
        """Tokens that the engine itself will write for a block."""
        binding, between = self.binding, len(headers) - 1
        closing = len(headers) * len(binding.forced_close)
        separators = between * len(binding.path_separator) + len(binding.last_separator)
        return len(inject) + sum(map(len, headers)) + closing + separators + len(binding.conclusion_header)

    def _branch_position_end(self, strand: Strand) -> int:
        """A branch has to leave positions for its path-close and for its parent's conclusion header."""
        binding = self.binding
        separator = max(len(binding.path_separator), len(binding.last_separator))
        header = len(binding.conclusion_header)
        tail = header + separator if self._advances else max(header, separator)
        return strand.position_end - len(binding.forced_close) - tail

    def _fork(self, strand: Strand, labels: list[str], inject: tuple[int, ...], fork: int) -> list[Action]:
        headers = [self.binding.path_header(label) for label in labels]
        self.ledger.reserve(self._reserve_for(headers, inject))
        self.ledger.inject(len(inject))
        strand.write(inject)
        block = len(strand.forks)
        children = tuple(
            Strand((*strand.key, block, i), label, strand, self.grammar.branch(strand.frame.depth))
            for i, label in enumerate(labels)
        )
        for child, header in zip(children, headers, strict=True):
            child.header, child.position, child.kv_length = header, fork, strand.kv_length
            child.position_end, child.shift = self._branch_position_end(strand), strand.shift
            child.deltas = [child.position_delta]
        strand.forks.append((len(strand.tokens), children))
        strand.open_children = len(children)
        strand.status = Status.PARKED
        self._running -= 1
        self._ready.extendleft(reversed(children))  # depth first, so that the KV of a deep block is joined early
        return [Fork(strand, children, inject), *self._start_ready()]

    # --- process -----------------------------------------------------------------------------------------------

    def _start_ready(self) -> list[Action]:
        """Start waiting branches while `max_parallel` allows."""
        actions: list[Action] = []
        while self._ready and self._running < (self.limits.max_parallel or UNBOUNDED):
            child = self._ready.popleft()
            self._running += 1
            actions.append(self._start(child))
        return actions

    def _start(self, child: Strand) -> Start:
        position = child.position
        self.ledger.inject(len(child.header))
        child.write(child.header)
        child.status = Status.RUNNING
        return Start(child, child.header, position)

    def _close(self, strand: Strand, reason: FinishReason, sampled: int | None = None) -> list[Action]:
        """End a running branch, with its sampled path-close or by writing one."""
        assert strand.parent is not None
        separator = self.binding.separator_after(strand is strand.parent.forks[-1][1][-1])
        closing = self.binding.forced_close
        if sampled is not None:
            self.ledger.release(len(closing))
            self.ledger.used += 1
            strand.write((sampled,))
        inject = separator if sampled is not None else (*closing, *separator)
        self.ledger.inject(len(inject))
        strand.write(inject)
        strand.close = len(strand.tokens) - len(separator) - 1
        strand.join_position = strand.position - (0 if self._advances else len(separator))
        strand.status, strand.finish_reason = Status.CLOSED, reason
        self._running -= 1
        strand.parent.open_children -= 1
        actions: list[Action] = [Close(strand, reason, inject)]
        return actions + (self._start_ready() if strand.parent.open_children else self._join(strand.parent))

    # --- reduce ------------------------------------------------------------------------------------------------

    def _join(self, strand: Strand) -> list[Action]:
        """Let the parent of closed branches go on."""
        children = strand.forks[-1][1]
        joined = max(child.join_position - child.shift for child in children) + strand.shift
        spliced = sum(child.kv_length - strand.kv_length for child in children)
        if self.binding.dialect.join == "prefill":
            ahead = strand.position + spliced - joined
            strand.shift += ahead
            strand.position_end += ahead
            joined += ahead
        inject = self.binding.conclusion_header
        strand.kv_length += spliced
        strand.position = joined
        strand.deltas.append(strand.position_delta)
        self.ledger.inject(len(inject))
        strand.write(inject)
        strand.frame = self.grammar.conclude(strand.frame)
        strand.status = Status.RUNNING
        self._running += 1
        actions: list[Action] = [Join(strand, children, inject, joined), *self._start_ready()]
        return actions if self._out_of_tokens else self._check_limits(strand, actions)

    # --- the end -----------------------------------------------------------------------------------------------

    def _run_out(self) -> list[Action]:
        """No token is left: spend what was reserved on closing every branch, so that the transcript is well formed."""
        self._out_of_tokens = True
        while self._ready:
            self._start(self._ready.popleft())
        while self.root.status is Status.PARKED:
            for strand in list(self.root.walk()):
                if strand.status is Status.RUNNING and strand.parent is not None:
                    self._close(strand, FinishReason.LENGTH)
        return self._finish(FinishReason.LENGTH)

    def _finish(self, reason: FinishReason) -> list[Action]:
        self.finish_reason = reason
        self._ready.clear()
        for strand in self.root.walk():
            if strand.status is not Status.CLOSED:
                strand.status, strand.finish_reason, strand.held = Status.CLOSED, reason, 0
        return [Finish(reason)]
