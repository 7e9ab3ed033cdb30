"""One request as vLLM sees it: a tree of vLLM requests, one per strand, that one controller decides about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np
from vllm import SamplingParams

from multiverse.decoding.late import deciding_tokens
from multiverse.decoding.prompt_scores import PromptScores
from multiverse.decoding.sampled_rows import SampledRows
from multiverse.decoding.strand import Strand
from multiverse.decoding.stream import BranchEvent
from multiverse.serving import request_tree
from multiverse_vllm.scheduler.host import Request

Row = tuple[np.ndarray, np.ndarray, int]
"""Logprobs of one sampled token: token ids and logprobs, arrays `[top + 1]` at most, itself first, and its rank."""


class Place(Enum):
    """Where a member is, as far as `Queue` is asked: in one of vLLM's queues (running or waiting), or in none."""

    OUT = "out"
    QUEUED = "queued"
    PARKED = "parked"


class Head(NamedTuple):
    """The first tokens that a branch computes: its parent's, up to index `end` of its sequence, at its `delta`."""

    end: int
    delta: int


@dataclass(eq=False)
class Member(request_tree.Member):
    """A strand and the vLLM request that computes it.

    Attributes:
        place: in a queue of vLLM; parked, with its KV and nothing to be computed; out, with neither. Set by `Queue`.
        valid_kv_length: KV of how many tokens is right, once the steps under way have run: not that of a dropped token.
        sampled: offset in the strand's tokens of the first token that was sampled in the last step.
        shared: of how many tokens it has its parent's KV.
        head: tokens of its parent that it computes itself, as their KV was not there yet; `None` once it has.
        lost: tokens and blocks of its own that vLLM took when it preempted the request.
    """

    tree: RequestTree
    request: Request = field(kw_only=True)
    shared: int = field(default=0, kw_only=True)
    head: Head | None = field(default=None, kw_only=True)
    place: Place = field(default=Place.OUT, kw_only=True)
    valid_kv_length: int = field(default=0, init=False)
    sampled: int | None = field(default=None, init=False)
    lost: tuple[int, int] | None = field(default=None, init=False)

    def advance_to(self, part: int) -> None:
        super().advance_to(part)
        self.drain_started_at = None

    def prompt_length(self) -> int:
        """How many of the request's tokens count as prompt when it enters the batch again.

        All of them, as that is simplest; but penalties on what was generated have to know what was.
        """
        sampling, length = self.tree.sampling, int(self.request.num_tokens)
        if not sampling.presence_penalty and not sampling.frequency_penalty:
            return length
        in_prompt = bool(self.strand.key) and self.strand.key[0] < 0
        return length if in_prompt else min(length, len(self.tree.controller.prompt.ids))

    @property
    def parked(self) -> bool:
        """Whether it holds its KV and nothing is to be computed."""
        return self.place is Place.PARKED

    @property
    def idle(self) -> bool:
        return self.parked

    @property
    def forkable(self) -> bool:
        return self.parked or self.draining

    @property
    def settled(self) -> bool:
        """While it is parked, nothing is: what is under way then is dropped. Scores of the prompt come first."""
        return self.parked or (super().settled and self.tree.scores is None)


@dataclass(eq=False)
class RequestTree(request_tree.RequestTree):
    """The strands of one client request.

    Attributes:
        sampling: the client's sampling parameters.
        block_hasher: what vLLM hashes the causal beginning of the root with, for its prefix cache; `None` without one.
        members: by strand key, those that vLLM holds a request for.
        scores: logprobs of the prompt's tokens, if it asked for those too and the prompt is not one causal sequence;
            until it has them.
        replays: how often the whole tree had to be computed again.
        restarts: how often any of its requests had to.
        events: what the client was not sent yet, if it wants events.
        followed: its members of which something is to be done after each step is scheduled; `None` if not known. With
            it, `deltas` are the position deltas of its requests, `running` is how many of its branches are computed,
            and `parked` how many of its members wait.
    """

    sampling: SamplingParams = field(kw_only=True)
    block_hasher: Callable[[Request], list[bytes]] | None = field(kw_only=True)
    members: dict[tuple[int, ...], Member] = field(default_factory=dict, init=False)
    scores: PromptScores[Row] | None = field(default=None, init=False)
    replays: int = field(default=0, init=False)
    restarts: int = field(default=0, init=False)
    events: list[BranchEvent] = field(default_factory=list, init=False)
    followed: list[Member] | None = field(default=None, init=False)
    deltas: dict[str, int] = field(default_factory=dict, init=False)
    running: int = field(default=0, init=False)
    parked: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rows = None if self.sampling.num_logprobs is None else SampledRows(self.options.return_tree)
        known = {None, *deciding_tokens(self.controller.binding)}
        unknown = self.sampling.repetition_detection is not None or self.sampling.eos_token_id not in known
        self.asked_always = self.asked_always or unknown

    def disturb(self) -> None:
        super().disturb()
        self.followed = None

    def survey(self) -> list[Member]:
        """Find, if it isn't known, who is `followed`, and return that: those who drain or begin; all, if the prompt
        is scored."""
        if self.followed is None:
            scored, members = self.scores is not None, self.members.values()
            self.followed = [m for m in members if scored or m.draining or m.head]
            self.deltas = {m.request.request_id: m.delta for m in members if m.delta and not m.parked}
            self.running = sum(m.strand.parent is not None and not m.parked for m in members)
            self.parked = sum(m.parked for m in members)
        return self.followed

    @property
    def root(self) -> Member:
        """The member that the client knows."""
        return self.members[()]

    def name_of(self, strand: Strand) -> str:
        """A request id for a branch: not that of its request before a replay, of which steps may be under way yet."""
        name = f"{self.root.request.request_id}/{'.'.join(map(str, strand.key))}"
        return f"{name}~{self.restarts}" if self.restarts else name

    def ids(self) -> list[str]:
        """Ids of all vLLM requests of the tree."""
        return [member.request.request_id for member in self.members.values()]
