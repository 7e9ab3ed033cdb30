"""One request as the adapter sees it: a tree of strands, each computed by one SGLang request after the other.

A client's request is SGLang's own until its first fork; from then on it is only what the client is answered with, and
every strand gets requests of its own (`runs.py`) that no client ever sees.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any

from multiverse.actions import Action
from multiverse.budgets import FinishReason
from multiverse.controller import Controller
from multiverse.metrics import Tally
from multiverse.options import Options
from multiverse.program import Spans
from multiverse.replay import Part, parts
from multiverse.strand import Status, Strand
from multiverse.stream import DocumentStream, EventStream
from multiverse_sglang.streamer import tell

if TYPE_CHECKING:
    from multiverse_sglang.single_pass import Passage


@dataclass(eq=False)
class Held:
    """KV slots of a strand that is in no batch.

    Attributes:
        slots: slot index of every computed token of its sequence, an int64 tensor on the KV pool's device.
        own: the first of them that is its own; those before belong to its parent or to the radix tree. It begins a page
            unless none is its own.
        lock: what keeps the radix tree from evicting its part, if anything.
    """

    slots: Any
    own: int
    lock: Any = None


@dataclass(eq=False)
class Member:
    """A strand and how far it is computed.

    Attributes:
        tokens: its whole sequence, what it shares with its parent included, as far as it was given.
        part: index of the part that is or was computed last.
        delta: position delta of that part.
        written: how many of the strand's own tokens it was given.
        draining: what is computed is known already; the token sampled behind it is ignored.
        run: the SGLang request that is queued or in a batch for it, if any.
        held: its KV while none is in a batch. While one is, only the lock is still valid.
        passage: how the run computes blocks in one go, until it has.
        arrived: whether a result came for the run in this step.
        sampled: offset in the strand's tokens of the token that came with it, if it was kept.
        turned_at: when it forked last, in monotonic seconds; `None` if it has not.
    """

    tree: RequestTree
    strand: Strand
    tokens: array[int] = field(default_factory=lambda: array("q"))
    part: int = 0
    delta: int = 0
    written: int = 0
    draining: bool = False
    run: Any = None
    held: Held | None = None
    passage: Passage | None = None
    arrived: bool = False
    sampled: int | None = None
    turned_at: float | None = None

    def end_passage(self) -> None:
        """What was to be computed in one go is computed, or will not be."""
        if self.passage is not None:
            self.passage.release()
            self.passage = None

    def parts(self) -> list[Part]:
        """The parts of the strand, as far as they are known."""
        return parts(self.tree.controller, self.strand)

    def given(self, part: int) -> None:
        """Note that the sequence now ends with `part`, and whether there is anything to sample behind it."""
        known = self.parts()
        self.part, self.delta, self.written = part, known[part].delta, len(self.strand.tokens)
        self.draining = part + 1 < len(known) or self.strand.status is not Status.RUNNING

    @property
    def computed(self) -> int:
        """Tokens of its sequence whose KV is there."""
        return 0 if self.held is None else len(self.held.slots)

    @property
    def closed(self) -> bool:
        """Whether it is a branch that ended, with nothing under way for it. Its last tokens may have no KV yet."""
        return self.run is None and self.strand.status is Status.CLOSED and self.part == len(self.parts()) - 1


@dataclass(frozen=True)
class Program:
    """What the server says about a request that a state of a program makes (`states.py`).

    Attributes:
        state: key of the state.
        spans: the blocks that were joined so far.
        shared: of a branch, how many tokens it has in common with what it was forked from; its KV is kept.
        branches: keys of the states that this request joins.
    """

    state: str
    spans: Spans
    shared: int | None
    branches: tuple[str, ...]


@dataclass(eq=False)
class RequestTree:
    """The strands of one client request.

    Attributes:
        options: the client's, on top of the server's.
        tally: where the scheduler counts.
        asked: whether the client's request has a `multiverse` field.
        age: order of arrival.
        client: the request as the client knows it.
        members: by strand key, those that were started and not joined yet.
        rows: by strand key and offset, the logprobs of sampled tokens, if the client asked for any.
        open: whether it is taken apart into strands; before, SGLang computes `client` as it always does.
        program: if it belongs to a state of a program, which.
        plain: tokens that SGLang had shown by itself before the first fork.
        reason: why SGLang ended the root, once it did.
        recomputed: tokens that were computed again because memory was short.
        given_up: slots it gave up the last time.
        created, started_at, closed_at: when the request came, and when each branch was started and joined.
    """

    controller: Controller
    options: Options
    tally: Tally
    asked: bool
    age: int
    client: Any
    program: Program | None = None
    members: dict[tuple[int, ...], Member] = field(default_factory=dict)
    rows: dict[tuple[int, ...], dict[int, Any]] = field(default_factory=dict)
    open: bool = False
    plain: int = 0
    reason: Any = None
    recomputed: int = 0
    given_up: int = 0
    created: float = field(default_factory=time.monotonic)
    started_at: dict[tuple[int, ...], float] = field(default_factory=dict)
    closed_at: dict[tuple[int, ...], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stream = DocumentStream(self.controller.root)
        streams = self.options.stream == "events" and self.client.stream
        self._events = EventStream(self.controller.root) if streams else None
        self.members[()] = Member(self, self.controller.root, run=self.client)

    def tell(self, strand: Strand, actions: Iterable[Action]) -> None:
        """Tell the client what the controller decided about `strand`, if it wants events."""
        if self._events is not None and (events := self._events.push(strand, actions)):
            tell(self.client, {"events": [astuple(event) for event in events]})

    def end(self, strand: Strand, reason: FinishReason) -> None:
        """End `strand` because SGLang says so."""
        self.tell(strand, self.controller.end(strand, reason))

    def abort(self) -> None:
        """End the request and all its strands; nothing if it has ended by itself."""
        self.tell(self.controller.root, self.controller.abort())

    @property
    def root(self) -> Member:
        """The member that the tree begins and ends with."""
        return self.members[()]

    @property
    def commit(self) -> bool:
        """Whether it only computes its prompt and samples nothing."""
        return self.program is not None and self.client.sampling_params.max_new_tokens == 0

    @property
    def computed(self) -> bool:
        """Whether the root has nothing left to compute but what has yet to be sampled."""
        root = self.root
        return root.run is None and root.part == len(root.parts()) - 1 and root.computed == len(root.tokens)

    @property
    def structured(self) -> bool:
        """Whether its KV is more than one causal sequence, now or at some time."""
        return bool(self.controller.root.forks or self.controller.prompt.strand.forks)
