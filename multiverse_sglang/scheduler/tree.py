"""One request as the adapter sees it: a tree of strands, each computed by one SGLang request after the other.

A client's request is SGLang's own until its first fork; from then on it is only what the client is answered with, and
every strand gets requests of its own (`runs.py`) that no client ever sees.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from multiverse.decoding.actions import Action
from multiverse.decoding.budgets import FinishReason
from multiverse.decoding.program import Spans
from multiverse.decoding.prompt_scores import PromptScores
from multiverse.decoding.sampled_rows import SampledRows
from multiverse.decoding.strand import Status, Strand
from multiverse.serving import request_tree
from multiverse.serving.containment import Guard
from multiverse.serving.metrics import Tally
from multiverse.serving.stops import Stops
from multiverse.serving.verdict import Judge
from multiverse_sglang.channels import MEMBER
from multiverse_sglang.scheduler.streamer import tell

if TYPE_CHECKING:
    from multiverse_sglang.scheduler.single_pass import Passage


class Row(NamedTuple):
    """Logprobs of one sampled token, as SGLang reports them; what was not asked for is `None`."""

    value: float
    top: tuple[list[float], list[int]] | None
    chosen: tuple[list[float], list[int]] | None


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

    def disown(self) -> None:
        """Forget what is its own: SGLang has given it back."""
        self.slots = self.slots[: self.own]


@dataclass(eq=False)
class Member(request_tree.Member):
    """A strand and how far it is computed.

    Attributes:
        tokens: its whole sequence, what it shares with its parent included, as far as it was given.
        run: the SGLang request that is queued or in a batch for it, if any.
        held: its KV while none is in a batch. While one is, only the lock is still valid.
        passage: how the run computes blocks in one go, until it has.
        arrived: whether a result came for the run in this step.
        sampled: offset in the strand's tokens of the token that came with it, if it was kept.
    """

    tree: RequestTree
    tokens: array[int] = field(default_factory=lambda: array("q"), kw_only=True)
    run: Any = field(default=None, kw_only=True)
    held: Held | None = field(default=None, kw_only=True)
    passage: Passage | None = field(default=None, init=False)
    arrived: bool = field(default=False, init=False)
    sampled: int | None = field(default=None, init=False)

    def end_passage(self) -> None:
        """What was to be computed in one go is computed, or will not be."""
        if self.passage is not None:
            self.passage.release()
            self.passage = None

    @property
    def computed(self) -> int:
        """Tokens of its sequence whose KV is there."""
        return 0 if self.held is None else len(self.held.slots)

    @property
    def closed(self) -> bool:
        """Whether it is a branch that ended, with nothing under way for it. Its last tokens may have no KV yet."""
        return self.run is None and self.strand.status is Status.CLOSED and self.part == len(self.parts()) - 1


def member_of(request: Any) -> Member | None:
    """What a request of SGLang is computed for, if it can have blocks."""
    found: Member | None = getattr(request, MEMBER, None)
    return found


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
class RequestTree(request_tree.RequestTree):
    """The strands of one client request.

    Attributes:
        tally: where the scheduler counts.
        guard: who catches what is raised while something is done about it.
        asked: whether the client's request has a `multiverse` field.
        client: the request as the client knows it.
        program: if it belongs to a state of a program, which.
        members: by strand key, those that were started and not joined yet.
        scores: logprobs of the prompt's tokens, if it asked for those and SGLang can't compute them by itself, until
            it has them.
        commit: whether it only computes its prompt and samples nothing.
        open: whether it is taken apart into strands; before, SGLang computes `client` as it always does.
        reason: why SGLang, or a stop string, ended the root, once it did.
        retracted: tokens that were computed for it and whose slots SGLang gave back by itself.
        has_begun: whether anything of it has been computed.
        ended: whether its client has its last answer.
        plain_judge: decides about tokens until it is open, while SGLang looks for stop strings itself.
    """

    tally: Tally = field(kw_only=True)
    guard: Guard[RequestTree] = field(kw_only=True)
    asked: bool = field(kw_only=True)
    client: Any = field(kw_only=True)
    program: Program | None = field(default=None, kw_only=True)
    members: dict[tuple[int, ...], Member] = field(default_factory=dict, init=False)
    scores: PromptScores[Row] | None = field(default=None, init=False)
    commit: bool = field(init=False)
    open: bool = field(default=False, init=False)
    reason: Any = field(default=None, init=False)
    retracted: int = field(default=0, init=False)
    has_begun: bool = field(default=False, init=False)
    ended: bool = field(default=False, init=False)
    plain_judge: Judge = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.plain_judge = Judge(self.controller, Stops())
        self.members[()] = Member(self, self.controller.root, run=self.client)
        self.rows = SampledRows(self.options.return_tree) if self.client.return_logprob else None
        parted = self.program is not None or self.structured
        self.commit = parted and self.client.sampling_params.max_new_tokens == 0

    def tell(self, strand: Strand, actions: Iterable[Action]) -> None:
        """Tell the client what the controller decided about `strand`, if it wants events."""
        if events := self.events_of(strand, actions):
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
    def computed(self) -> bool:
        """Whether the root has nothing left to compute but what has yet to be sampled."""
        root = self.root
        return root.run is None and root.part == len(root.parts()) - 1 and root.computed == len(root.tokens)
