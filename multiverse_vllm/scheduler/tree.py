"""One request as vLLM sees it: a tree of vLLM requests, one per strand, that one controller decides about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from multiverse.decoding.prompt_scores import PromptScores
from multiverse.decoding.sampled_rows import SampledRows
from multiverse.decoding.strand import Status, Strand
from multiverse.decoding.stream import BranchEvent
from multiverse.serving import request_tree

Row = tuple[Any, Any, Any]
"""Logprobs of one sampled token: token ids and logprobs, arrays `[top + 1]` at most, itself first, and its rank."""


@dataclass(eq=False)
class Member(request_tree.Member):
    """A strand and the vLLM request that computes it.

    Attributes:
        sampled: offset in the strand's tokens of the token sampled last.
        certain: KV of how many tokens is right, once the steps under way have run: not that of a dropped token.
        parked: it holds its KV and nothing is to be computed.
        lost: tokens and blocks of its own that vLLM took when it preempted the request.
    """

    tree: RequestTree
    request: Any = field(kw_only=True)
    certain: int = field(default=0, init=False)
    sampled: int | None = field(default=None, init=False)
    parked: bool = field(default=False, init=False)
    lost: tuple[int, int] | None = field(default=None, init=False)

    def advance_to(self, part: int) -> None:
        super().advance_to(part)
        self.parked, self.drain_started_at = False, None

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
class RequestTree(request_tree.RequestTree):
    """The strands of one client request.

    Attributes:
        sampling: the client's sampling parameters.
        block_hasher: what vLLM hashes the causal beginning of the root with, for its prefix cache.
        members: by strand key, those that vLLM holds a request for.
        scores: logprobs of the prompt's tokens, if it asked for those too and the prompt is not one causal sequence;
            until it has them.
        replays: how often the whole tree had to be computed again.
        restarts: how often any of its requests had to.
        events: what the client was not told yet, if it wants events.
    """

    sampling: Any = field(kw_only=True)
    block_hasher: Any = field(kw_only=True)
    members: dict[tuple[int, ...], Member] = field(default_factory=dict, init=False)
    scores: PromptScores[Row] | None = field(default=None, init=False)
    replays: int = field(default=0, init=False)
    restarts: int = field(default=0, init=False)
    events: list[BranchEvent] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rows = None if self.sampling.num_logprobs is None else SampledRows(self.options.return_tree)

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
