"""One request as vLLM sees it: a tree of vLLM requests, one per strand, that one controller decides about."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vllm.sampling_params import RequestOutputKind

from multiverse.actions import Action
from multiverse.controller import Controller
from multiverse.options import Options
from multiverse.replay import Part, parts
from multiverse.strand import Status, Strand
from multiverse.stream import BranchEvent, DocumentStream, EventStream

Row = tuple[Any, Any, Any]
"""Logprobs of one sampled token: token ids and logprobs, arrays `[1, top + 1]`, and its rank, `[1]`."""


@dataclass(eq=False)
class Member:
    """A strand and the vLLM request that computes it.

    Attributes:
        part: index of the part that the request computes or has computed.
        delta: position delta of that part.
        sampled: offset in the strand's tokens of the token sampled last.
        certain: KV of how many tokens is right, once the steps under way have run: not that of a dropped token.
        written: how many of the strand's tokens the request was given.
        draining: what is computed is known already; the token sampled behind it is ignored.
        turned_at: when it forked last, in monotonic seconds; `None` if it has not, or was computed again since.
        parked: it holds its KV and nothing is to be computed.
    """

    tree: RequestTree
    strand: Strand
    request: Any
    part: int = 0
    delta: int = 0
    certain: int = 0
    written: int = 0
    sampled: int | None = None
    draining: bool = False
    parked: bool = False
    turned_at: float | None = None

    def parts(self) -> list[Part]:
        """The parts of the strand, as far as they are known."""
        return parts(self.tree.controller, self.strand)

    def given(self, part: int) -> None:
        """Note that the request now has the tokens of `part`, and whether it may sample behind them."""
        known = self.parts()
        self.part, self.delta, self.written = part, known[part].delta, len(self.strand.tokens)
        self.draining = part + 1 < len(known) or self.strand.status is not Status.RUNNING
        self.parked, self.turned_at = False, None

    def prompt_length(self) -> int:
        """How many of the request's tokens count as prompt when it enters the batch again.

        All of them, as that is simplest; but penalties on what was generated have to know what was.
        """
        sampling, length = self.tree.sampling, self.request.num_tokens
        if not sampling.presence_penalty and not sampling.frequency_penalty:
            return int(length)
        in_prompt = bool(self.strand.key) and self.strand.key[0] < 0
        return int(length) if in_prompt else min(int(length), len(self.tree.controller.prompt.ids))

    @property
    def done(self) -> bool:
        """Whether the branch is closed and all of its KV is there."""
        return self.parked and self.strand.status is Status.CLOSED and self.part == len(self.parts()) - 1


@dataclass(eq=False)
class RequestTree:
    """The strands of one client request.

    Attributes:
        members: by strand key, those that vLLM holds a request for.
        options: the client's, on top of the server's.
        sampling: the client's sampling parameters.
        block_hasher: what vLLM hashes the causal beginning of the root with, for its prefix cache.
        rows: by strand key and offset, the logprobs of sampled tokens, if the client asked for any.
        replays: how often the whole tree had to be computed again.
        recomputed: tokens that were computed and given up again.
        given_up: how many blocks it gave up the last time.
        events: what the client was not told yet, if it wants events.
        created: when the request came; with `started_at` and `closed_at`, by strand key, in monotonic seconds.
    """

    controller: Controller
    options: Options
    sampling: Any
    block_hasher: Any
    members: dict[tuple[int, ...], Member] = field(default_factory=dict)
    rows: dict[tuple[int, ...], dict[int, Row]] = field(default_factory=dict)
    replays: int = 0
    recomputed: int = 0
    given_up: int = 0
    events: list[BranchEvent] = field(default_factory=list)
    created: float = field(default_factory=time.monotonic)
    started_at: dict[tuple[int, ...], float] = field(default_factory=dict)
    closed_at: dict[tuple[int, ...], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stream = DocumentStream(self.controller.root)
        streams = self.options.stream == "events" and self.sampling.output_kind is RequestOutputKind.DELTA
        self._event_stream = EventStream(self.controller.root) if streams else None

    def tell(self, strand: Strand, actions: Iterable[Action]) -> bool:
        """Note what the controller decided about a token of `strand`. Returns whether the client wants events."""
        if self._event_stream is None:
            return False
        self.events += self._event_stream.push(strand, actions)
        return True

    @property
    def root(self) -> Member:
        """The member that the client knows."""
        return self.members[()]

    @property
    def structured(self) -> bool:
        """Whether its KV is more than one causal sequence, now or at some time."""
        return bool(self.controller.root.forks or self.controller.prompt.strand.forks)

    def ids(self) -> list[str]:
        """Ids of all vLLM requests of the tree."""
        return [member.request.request_id for member in self.members.values()]
