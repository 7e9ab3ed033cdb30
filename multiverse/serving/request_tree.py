"""A client's request while a host serves it: what every adapter keeps of it, whatever computes its strands."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from multiverse.decoding.actions import Action
from multiverse.decoding.controller import Controller
from multiverse.decoding.late import deciding_tokens
from multiverse.decoding.replay import Part, parts
from multiverse.decoding.sampled_rows import SampledRows
from multiverse.decoding.strand import Status, Strand
from multiverse.decoding.stream import BranchEvent, DocumentStream, EventStream
from multiverse.serving.metrics import Tally
from multiverse.serving.options import Options
from multiverse.serving.report import Observed, report
from multiverse.serving.stops import Stops
from multiverse.serving.verdict import Judge
from multiverse.serving.weights import WeightVersions


@dataclass(eq=False)
class RequestTree:
    """The strands of one client request.

    Attributes:
        controller: decides about them.
        options: the client's, on top of the server's.
        streams: whether the client gets its answer as it grows.
        stops: what the client wants to end at, where that is not left to the host.
        judge: decides about tokens, by `stops` and the controller.
        rank, arrived: who comes first when memory is short (`multiverse.serving.pressure`).
        stream: the answer so far, in document order.
        rows: logprobs of sampled tokens, if the client asked for any.
        recomputed: tokens that were computed again because memory was short.
        released_kv: slots or blocks that it held when it was preempted last.
        members: by strand key, the strands that the host knows.
        asked_always: whether somebody looks at each of its tokens; a host may have reasons of its own.
        quiet_until: nothing has to be decided before it has used so many tokens (`multiverse.serving.quiet`).
        weights: which weights said which of its tokens, if they were changed meanwhile.
        created: when the request came; with `started_at` and `closed_at`, by strand key, in monotonic seconds.
        started_at: when each branch was started.
        closed_at: when the KV of each branch was complete, or joined.
        held: by strand key, seconds for which a branch was held back in all.
        accepted_drafts: how many of its tokens were drafted.
    """

    controller: Controller
    options: Options
    streams: bool
    stops: Stops = field(default=Stops(), kw_only=True)
    rank: int = field(default=0, kw_only=True)
    arrived: float = field(default_factory=time.monotonic, kw_only=True)
    created: float = field(default_factory=time.monotonic, kw_only=True)
    judge: Judge = field(init=False)
    stream: DocumentStream = field(init=False)
    rows: SampledRows[Any] | None = field(default=None, init=False)
    recomputed: int = field(default=0, init=False)
    released_kv: int = field(default=0, init=False)
    members: dict[tuple[int, ...], Any] = field(default_factory=dict, init=False)
    asked_always: bool = field(init=False)
    quiet_until: int = field(default=0, init=False)
    weights: WeightVersions = field(default_factory=WeightVersions, init=False)
    started_at: dict[tuple[int, ...], float] = field(default_factory=dict, init=False)
    closed_at: dict[tuple[int, ...], float] = field(default_factory=dict, init=False)
    held: dict[tuple[int, ...], float] = field(default_factory=dict, init=False)
    accepted_drafts: int = field(default=0, init=False)
    _held_at: dict[tuple[int, ...], float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.judge = Judge(self.controller, self.stops)
        self.stream = DocumentStream(self.controller.root)
        wanted = self.streams and self.options.stream == "events"
        self._events = EventStream(self.controller.root) if wanted else None
        ends = not self.stops.tokens <= deciding_tokens(self.controller.binding)
        self.asked_always = wanted or ends or bool(self.stops.strings)

    def events_of(self, strand: Strand, actions: Iterable[Action]) -> list[BranchEvent]:
        """The events of `actions` that the controller decided about `strand`; none if the client wants none."""
        return [] if self._events is None else self._events.push(strand, actions)

    def room(self) -> int:
        """How many tokens it may sample before there may be something to decide, if none of them is deciding."""
        return self.controller.room()

    def disturb(self) -> None:
        """Something was decided about a strand, or done to one: how it goes on has to be looked at again."""
        self.quiet_until = 0

    def drop_rows(self, key: tuple[int, ...], offset: int) -> None:
        """Forget the logprobs of tokens that were taken back, from `offset` of the strand `key` on."""
        if self.rows is not None:
            self.rows.drop(key, offset)

    def note_held(self, key: tuple[int, ...]) -> None:
        """The branch `key`, which could run, is held from now on."""
        assert key not in self._held_at
        self._held_at[key] = time.monotonic()

    def note_released(self, key: tuple[int, ...]) -> None:
        """It is not held any more, if it was."""
        if (since := self._held_at.pop(key, None)) is not None:
            self.held[key] = self.held.get(key, 0.0) + time.monotonic() - since

    @property
    def held_now(self) -> int:
        """How many of its branches are held."""
        return len(self._held_at)

    def record(self, tally: Tally, asked: bool, version: str = "") -> dict[str, Any] | None:
        """Count the request, which has ended, and return its record, if there is anything to tell or it was asked.

        `version` is what the host calls the weights that it has now.
        """
        root = self.controller.root
        if not root.forks and not root.fallbacks and not asked:
            return None
        for key in list(self._held_at):
            self.note_released(key)
        told = self.options.return_tree
        observed = Observed(
            recomputed_tokens=self.recomputed,
            started={(): 0.0} | self._since_created(self.started_at),
            closed=self._since_created(self.closed_at) | {(): time.monotonic() - self.created},
            held=self.held,
            accepted_draft_tokens=self.accepted_drafts,
            logprobs=None if self.rows is None else self.rows.values(root),
            weights={s.key: self.weights.of_strand(s, version) for s in root.walk()} if told and version else None,
        )
        record = report(self.controller, observed, told)
        tally.finished(record, (len(children) for strand in root.walk() for _, children in strand.forks))
        return record

    def _since_created(self, times: dict[tuple[int, ...], float]) -> dict[tuple[int, ...], float]:
        return {key: at - self.created for key, at in times.items()}

    def note_start(self, parent: Member, branch: Strand, tally: Tally) -> None:
        """A member was made of `branch`; the first of a block counts its fork."""
        now = time.monotonic()
        self.started_at.setdefault(branch.key, now)
        if branch.key[-1] == 0:
            tally.count("forks")
            if parent.drain_started_at is not None:
                tally.observe("fork_seconds", now - parent.drain_started_at)

    @property
    def structured(self) -> bool:
        """Whether its KV is more than one causal sequence, now or at some time."""
        return bool(self.controller.root.forks or self.controller.prompt.strand.forks)


@dataclass(eq=False)
class Member:
    """A strand and how far the host has come with it.

    Attributes:
        part: index of the part of the strand (`multiverse.decoding.replay`) that is or was computed last.
        delta: position delta of that part.
        draining: what is computed is known already; the token sampled behind it is ignored.
        drain_started_at: when it began to drain behind its last fork, in monotonic seconds;
            `None` if it has not, or was computed again since.
        held_since: number of the step since which it is held (`multiverse.serving.admission.holding`); `None` if it
            is not. Set by who holds and releases.
    """

    tree: Any
    strand: Strand
    part: int = field(default=0, init=False)
    delta: int = field(default=0, init=False)
    draining: bool = field(default=False, init=False)
    drain_started_at: float | None = field(default=None, init=False)
    held_since: int | None = field(default=None, init=False)

    def parts(self) -> list[Part]:
        """The parts of the strand, as far as they are known."""
        return parts(self.tree.controller, self.strand)

    def advance_to(self, part: int) -> None:
        """Note that the host has all tokens of the strand up to the end of `part`, an index into `parts()`.

        From then on `delta` is that part's, and it is `draining` if nothing is to be sampled behind them: more parts
        are known, or the strand has ended. KV is the host's affair.
        """
        known = self.parts()
        self.part, self.delta = part, known[part].delta
        self.draining = part + 1 < len(known) or self.strand.status is not Status.RUNNING
        self.tree.disturb()

    def note_held(self, step: int) -> None:
        """It is held from `step` on."""
        assert self.held_since is None
        self.held_since = step
        self.tree.note_held(self.strand.key)

    def note_released(self) -> None:
        """It is not held any more, if it was."""
        self.held_since = None
        self.tree.note_released(self.strand.key)

    def drain(self) -> None:
        """Let it be `draining` from now on."""
        self.draining = True
        self.tree.disturb()

    @property
    def idle(self) -> bool:
        """Whether nothing is under way for it; each host knows by what."""
        raise NotImplementedError

    @property
    def forkable(self) -> bool:
        """Whether a host may start branches of it, once it forks; some can while its last tokens are computed."""
        return self.idle

    @property
    def settled(self) -> bool:
        """Whether whatever is sampled for it now is its strand's next token."""
        return self.strand.status is Status.RUNNING and not self.draining

    @property
    def closed(self) -> bool:
        """Whether it is a branch that ended, with nothing under way for it."""
        return self.strand.status is Status.CLOSED and self.idle and self.part == len(self.parts()) - 1
