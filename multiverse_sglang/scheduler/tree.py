"""One request as the adapter sees it: a tree of strands, each computed by one SGLang request after the other.

A client's request is SGLang's own until its first fork; from then on it is only what the client is answered with, and
every strand gets requests of its own (`runs.py`) that no client ever sees.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field
from typing import NamedTuple

from multiverse.decoding.actions import Action
from multiverse.decoding.prompt_scores import PromptScores
from multiverse.decoding.sampled_rows import SampledRows
from multiverse.decoding.strand import Strand
from multiverse.serving import request_tree
from multiverse.serving.containment import Guard
from multiverse.serving.metrics import Tally
from multiverse.serving.stops import Stops
from multiverse.serving.verdict import Judge
from multiverse_sglang.channels import MEMBER
from multiverse_sglang.host import FinishReason, Request
from multiverse_sglang.scheduler.kv_slots import KVSlots
from multiverse_sglang.scheduler.program import Program
from multiverse_sglang.scheduler.single_pass import SinglePassPrefill
from multiverse_sglang.scheduler.streamer import attach

AHEAD = 64
"""Tokens for which a tree may be quiet at once, as SGLang keeps slots for all that its runs may generate."""


class Row(NamedTuple):
    """Logprobs of one sampled token, as SGLang reports them; what was not asked for is `None`."""

    value: float
    top: tuple[list[float], list[int]] | None
    chosen: tuple[list[float], list[int]] | None


@dataclass(eq=False)
class Member(request_tree.Member):
    """A strand and how far it is computed.

    Attributes:
        tokens: its whole sequence, what it shares with its parent included, as far as it was submitted.
        tokens_submitted: how many of those are the strand's own.
        run: the SGLang request that is queued or in a batch for it, if any.
        slots: its KV while none is in a batch. While one is, the request owns it and only the lock is still valid.
        prefill: how the run computes blocks in one forward, until it has.
        has_result: whether a result came for the run in this step.
        sampled: offsets in the strand's tokens of those that came with it and were kept.
        resumes: it was held, and decodes next for the first time since.
    """

    tree: RequestTree
    tokens: array[int] = field(default_factory=lambda: array("q"), kw_only=True)
    run: Request | None = field(default=None, kw_only=True)
    slots: KVSlots | None = field(default=None, kw_only=True)
    tokens_submitted: int = field(default=0, init=False)
    prefill: SinglePassPrefill | None = field(default=None, init=False)
    has_result: bool = field(default=False, init=False)
    sampled: range = field(default=range(0), init=False)
    resumes: bool = field(default=False, init=False)

    def advance_to(self, part: int) -> None:
        super().advance_to(part)
        self.tokens_submitted = len(self.strand.tokens)

    def note_result(self) -> None:
        """A result came for its run; what it means for the strand is done once the step is over."""
        self.has_result, self.sampled = True, range(0)
        self.tree.results.append(self)

    def end_prefill(self) -> None:
        """What was to be computed in one forward is computed, or will not be."""
        if self.prefill is not None:
            self.prefill.release()
            self.prefill = None

    @property
    def computed(self) -> int:
        """Tokens of its sequence whose KV is there."""
        return 0 if self.slots is None else self.slots.length

    @property
    def parked_slots(self) -> KVSlots | None:
        """What it owns outside of SGLang's batches, if it is in none."""
        return None if self.run is not None and self.run.kv.holds_kv else self.slots

    @property
    def idle(self) -> bool:
        """Whether no run computes it. Its last tokens may have no KV yet."""
        return self.run is None

    @property
    def settled(self) -> bool:
        """Whether its run, if it has one, only decodes from now on."""
        return self.run is None or (super().settled and len(self.run.output_ids) > 0)


def reserve(run: Request, tokens: int) -> None:
    """Keep SGLang from ending a run, or holding it back, because it has generated all but `tokens` of its share."""
    parameters = run.sampling_params
    parameters.max_new_tokens = max(parameters.max_new_tokens, len(run.output_ids) + tokens)


def member_of(request: object) -> Member | None:
    """What a request of SGLang is computed for, if it can have blocks."""
    found: Member | None = getattr(request, MEMBER, None)
    return found


def member_with(run: Request) -> Member:
    """What `run` is computed for. It has to be for something."""
    found = member_of(run)
    assert found is not None
    return found


@dataclass(eq=False)
class RequestTree(request_tree.RequestTree):
    """The strands of one client request.

    Attributes:
        tally: where the scheduler counts.
        guard: who catches what is raised while something is done about it.
        results: the members of all trees for which results came in this step.
        asked: whether the client's request has a `multiverse` field.
        client: the request as the client knows it.
        program: if it belongs to a state of a program, which.
        members: by strand key, those that were started and not joined yet.
        scores: logprobs of the prompt's tokens, if it asked for those and SGLang can't compute them by itself, until
            it has them.
        commit: whether it only computes its prompt and samples nothing.
        is_forked: whether it is taken apart into strands; before, SGLang computes `client` as it always does.
        reason: why SGLang, or a stop string, ended the root, once it did.
        retracted_tokens: tokens that were computed for it and whose slots SGLang gave back by itself.
        has_begun: whether anything of it has been computed.
        ended: whether its client has its last answer.
        host_judge: decides about tokens until it is forked, while SGLang looks for stop strings itself.
        watched: whether its runs are watched in this step.
    """

    tally: Tally = field(kw_only=True)
    guard: Guard[RequestTree] = field(kw_only=True)
    results: list[Member] = field(kw_only=True)
    asked: bool = field(kw_only=True)
    client: Request = field(kw_only=True)
    program: Program | None = field(default=None, kw_only=True)
    members: dict[tuple[int, ...], Member] = field(default_factory=dict, init=False)
    scores: PromptScores[Row] | None = field(default=None, init=False)
    commit: bool = field(init=False)
    is_forked: bool = field(default=False, init=False)
    reason: FinishReason | None = field(default=None, init=False)
    retracted_tokens: int = field(default=0, init=False)
    has_begun: bool = field(default=False, init=False)
    ended: bool = field(default=False, init=False)
    host_judge: Judge = field(init=False)
    watched: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.host_judge = Judge(self.controller, Stops())
        self.members[()] = Member(self, self.controller.root, run=self.client)
        self.rows = SampledRows(self.options.return_tree) if self.client.return_logprob else None
        self.asked_always = self.asked_always or bool(self.client.sampling_params.stop_regex_strs)
        parted = self.program is not None or self.structured
        self.commit = parted and self.client.sampling_params.max_new_tokens == 0

    def room(self) -> int:
        room = min(super().room(), AHEAD)
        for member in self.members.values():
            if member.run is not None:
                reserve(member.run, room + 2)
        return room

    def publish(self, strand: Strand, actions: Iterable[Action]) -> None:
        """Let the client know what the controller decided about `strand`, if it wants events."""
        if events := self.events_of(strand, actions):
            attach(self.client, {"events": [astuple(event) for event in events]})

    def abort(self) -> None:
        """End the request and all its strands; nothing if it has ended by itself."""
        self.publish(self.controller.root, self.controller.abort())

    @property
    def root(self) -> Member:
        """The member that the tree begins and ends with."""
        return self.members[()]

    @property
    def computed(self) -> bool:
        """Whether the root has nothing left to compute but what has yet to be sampled."""
        root = self.root
        return root.run is None and root.part == len(root.parts()) - 1 and root.computed == len(root.tokens)
