"""A request in the reference decoder, and its running strands as rows of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from multiverse.decoding.actions import Action
from multiverse.decoding.controller import Controller
from multiverse.decoding.document import to_transcript
from multiverse.decoding.strand import Status, Strand, derive_seed
from multiverse.oracle.cache import KV
from multiverse.oracle.sampling import Sampling
from multiverse.structure.tree import Transcript


@dataclass(frozen=True)
class Step:
    """What one strand did in one step: the controller was given a token for it and answered `actions`."""

    request: Request
    strand: Strand
    actions: Sequence[Action]


@dataclass(eq=False)
class Request:
    """One prompt on its way.

    Attributes:
        controller: decides what happens.
        sampling: how its tokens are picked.
        logprobs: by strand key, the raw model's log-probability of each token; `None` after a join.
    """

    controller: Controller
    sampling: Sampling
    logprobs: dict[tuple[int, ...], list[float | None]] = field(default_factory=dict)
    parked: dict[tuple[int, ...], Row] = field(default_factory=dict)

    def transcript(self) -> Transcript:
        """Prompt and completion so far, with log-probabilities."""
        padded = {
            strand.key: self.logprobs.get(strand.key, []) + [None] * len(strand.tokens)
            for strand in self.controller.root.walk()
        }
        return to_transcript(self.controller, padded)

    def context(self, strand: Strand, forked: bool = False) -> list[int]:
        """The ids that the next token of `strand` sees; without its latest branches if it has just `forked`."""
        parent = strand.parent
        ids = list(self.controller.prompt.ids) if parent is None else self.context(parent, forked=True)
        at = 0
        for offset, children in strand.forks[:-1] if forked else strand.forks:
            spans = [span for child in children for span in child.spans()]
            ids += strand.tokens[at:offset] + [token for child, i, j in spans for token in child.tokens[i:j]]
            at = offset
        return ids + strand.tokens[at:]


@dataclass(eq=False)
class Row:
    """A strand as a row of the batch.

    Attributes:
        fed: how many of the strand's tokens are in the cache.
        position: position of the next one.
        backlog: tokens to feed before that: the branches' own, if the dialect's join is `prefill`.
        logits: after the latest token.
        kv: its cache, while it is not in the batch.
    """

    request: Request
    strand: Strand
    fed: int
    position: int
    backlog: list[int] = field(default_factory=list)
    logits: torch.Tensor | None = None
    kv: KV | None = None

    def __post_init__(self) -> None:
        self.request.logprobs.setdefault(self.strand.key, [])
        seed = derive_seed(self.request.sampling.seed, (*self.strand.key, self.fed) if self.fed else self.strand.key)
        self.generator = torch.Generator().manual_seed(seed)
        self.processors = self.request.sampling.processors()

    @property
    def drained(self) -> bool:
        """Whether all its tokens are in the cache."""
        return self.fed == len(self.strand.tokens) and not self.backlog

    def next(self) -> int:
        """Take the next token to feed."""
        self.position += 1
        if self.backlog:
            return self.backlog.pop(0)
        self.fed += 1
        return self.strand.tokens[self.fed - 1]

    def decide(self, logits: torch.Tensor) -> Step | None:
        """With the logits after the latest token: rate the next one, and sample it unless it is known already."""
        self.logits = logits
        if self.backlog:
            return None
        step = None
        if self.drained and self.strand.status is Status.RUNNING:
            step = Step(self.request, self.strand, self._sample(logits))
        if not self.drained:
            token = self.strand.tokens[self.fed]
            self.request.logprobs[self.strand.key].append(logits.log_softmax(-1)[token].item())
        return step

    def _sample(self, logits: torch.Tensor) -> Sequence[Action]:
        sampling = self.request.sampling
        context = self.request.context(self.strand) if sampling.repetition_penalty != 1.0 else []
        token = sampling.pick(logits, context, self.generator, self.processors)
        return self.request.controller.accept(self.strand, token)
