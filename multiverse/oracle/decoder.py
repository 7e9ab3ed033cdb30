"""A reference decoder for any Hugging Face causal LM that really forks and really splices.

Slow and simple: every running strand is one row of a batch and is fed one token per step, sampled or injected. All it
does with structure is to carry out the controller's decisions on a cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from multiverse.actions import Action, Join, Start
from multiverse.attention import dense_mask, positions
from multiverse.binding import Binding, bind, detect
from multiverse.budgets import Limits
from multiverse.controller import Controller
from multiverse.dialects import Dialect
from multiverse.document import Statistics, statistics, to_transcript
from multiverse.layout import Separators
from multiverse.oracle.cache import KV, KVBatch, prefill, splice
from multiverse.oracle.sampling import Sampling
from multiverse.strand import Status, Strand, derive_seed
from multiverse.tree import Transcript


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
    _parked: dict[tuple[int, ...], _Row] = field(default_factory=dict)

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
class _Row:
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


class Decoder:
    """Decodes requests side by side.

    Args:
        model: a Hugging Face causal LM with full attention in every layer.
        binding: the dialect, bound to its tokenizer.
        separators: see `multiverse.layout`.
        splice_branches: False leaves the branches' KV out at every join. For ablations: the conclusion is then blind.

    Raises:
        UnsupportedModelError: if the model has layers whose KV can't be spliced.
    """

    def __init__(
        self, model: Any, binding: Binding, *, separators: Separators = "overlap", splice_branches: bool = True
    ) -> None:
        self.model = model
        self.binding = binding
        self.separators: Separators = separators
        self.splice_branches = splice_branches
        self._batch = KVBatch(model)
        self._rows: list[_Row] = []
        self._outside: list[_Row] = []
        self._pending: list[tuple[Request, Start | Join]] = []
        self._steps: list[Step] = []

    @property
    def busy(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self._rows or self._outside or self._steps)

    def add(self, prompt: Sequence[int], limits: Limits, sampling: Sampling | None = None) -> Request:
        """Prefill `prompt`, its blocks with the mask and positions of their layout, and let it decode.

        Raises:
            ValueError: if the prompt is empty.
        """
        if not prompt:
            raise ValueError("the prompt is empty: there is nothing to predict the first token from")
        controller = Controller(self.binding, limits, prompt, separators=self.separators)
        request = Request(controller, sampling or Sampling())
        layout = controller.prompt.layout
        row = _Row(request, controller.root, 0, layout.next_position)
        row.kv, logits = prefill(self.model, prompt, positions(layout), dense_mask(layout))
        self._outside.append(row)
        self._note(Step(request, controller.root, controller.begin()))
        self._note(row.decide(logits))
        return request

    def step(self) -> list[Step]:
        """Feed one token to every running strand, and sample where that was the last known one."""
        self._compose()
        if self._rows:
            positions = [row.position for row in self._rows]
            logits = self._batch.forward([row.next() for row in self._rows], positions)
            for row, scores in zip(self._rows, logits, strict=True):
                self._note(row.decide(scores))
        steps, self._steps = self._steps, []
        return steps

    def _note(self, step: Step | None) -> None:
        if step is not None:
            self._steps.append(step)
            self._pending += [(step.request, a) for a in step.actions if isinstance(a, Start | Join)]

    def _compose(self) -> None:
        """Take rows that are through out of the batch, put started and joined ones in."""
        keep = []
        for i, row in enumerate(self._rows):
            if row.request.controller.finish_reason is not None:
                continue
            if row.drained:
                row.kv = self._batch.row(i)
                row.request._parked[row.strand.key] = row
            else:
                keep.append(i)
        extra = self._enter()
        if extra or len(keep) < len(self._rows):
            self._batch.rebuild(keep, [row.kv for row in extra if row.kv is not None])
            self._rows = [self._rows[i] for i in keep] + extra
            for row in extra:
                row.kv = None

    def _enter(self) -> list[_Row]:
        """The rows that can join the batch now."""
        rows = []
        for row in self._outside:
            if row.drained:  # a prompt that ends with a goal forks before anything is fed
                row.request._parked[row.strand.key] = row
            else:
                rows.append(row)
        pending, self._outside, self._pending = self._pending, [], []
        for request, action in pending:
            row = self._start(request, action) if isinstance(action, Start) else self._join(request, action)
            if row is None:
                self._pending.append((request, action))
            else:
                rows.append(row)
        alive = [row for row in rows if row.request.controller.finish_reason is None]
        self._pending = [(r, action) for r, action in self._pending if r.controller.finish_reason is None]
        return alive

    def _start(self, request: Request, action: Start) -> _Row | None:
        """A row for a child: its parent's cache and nothing else. `None` while the parent isn't through."""
        assert action.strand.parent is not None
        parent = request._parked.get(action.strand.parent.key)
        if parent is None:
            return None
        assert parent.logits is not None
        row = _Row(request, action.strand, 0, action.position, kv=parent.kv)
        row.decide(parent.logits)
        return row

    def _join(self, request: Request, action: Join) -> _Row | None:
        """The parent's row with the branches' cache behind its own. `None` while one of them isn't through."""
        parked, children = request._parked, action.children
        if any(child.key not in parked for child in children):
            return None
        row = parked.pop(action.strand.key)
        caches = [kv for child in children if (kv := parked.pop(child.key).kv) is not None]
        assert row.kv is not None
        if self.binding.dialect.join == "prefill":
            spans = [span for child in children for span in child.spans()]
            row.backlog = [token for child, start, end in spans for token in child.tokens[start:end]]
            return row
        row.kv = splice(row.kv, caches if self.splice_branches else [])
        row.position = action.position
        request.logprobs[row.strand.key].append(None)
        return row


@dataclass(frozen=True)
class Generation:
    """One finished answer.

    Attributes:
        transcript: prompt and completion, with log-probabilities; feed it to `check`.
        ids: the completion, in document order.
        text: the completion as text.
        finish_reason: `stop` or `length`.
        statistics: figures about the completion.
    """

    transcript: Transcript
    ids: list[int]
    text: str
    finish_reason: str
    statistics: Statistics


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    *,
    dialect: Dialect | str | None = None,
    limits: Limits | None = None,
    separators: Separators = "overlap",
    splice_branches: bool = True,
    **sampling: Any,
) -> list[Generation]:
    """Decode `prompts` side by side, forking and splicing as the model asks for it.

    Args:
        model: a Hugging Face causal LM with full attention in every layer.
        tokenizer: its tokenizer.
        prompts: texts (encoded as they are, apply the chat template before) or lists of token ids.
        dialect: a dialect, its name or TOML file; detected from the tokenizer if not given.
        limits: budgets. `Limits(max_depth=0)` decodes the same model sequentially. By default 512 tokens.
        separators: see `multiverse.layout`.
        splice_branches: see `Decoder`.
        **sampling: `do_sample`, `temperature`, `top_k`, `top_p`, `min_p`, `repetition_penalty`, `seed`.

    Returns:
        one `Generation` per prompt, in order.

    Raises:
        BindingError: if the tokenizer doesn't know the dialect's tags.
        UnsupportedModelError: if the model has layers whose KV can't be spliced.
        TypeError: if a sampling parameter is unknown.
    """
    binding = bind(dialect or detect(tokenizer), tokenizer)
    decoder = Decoder(model, binding, separators=separators, splice_branches=splice_branches)
    parameters = Sampling(**sampling)
    ids = [tokenizer.encode(p, add_special_tokens=False) if isinstance(p, str) else list(p) for p in prompts]
    requests = [decoder.add(prompt, limits or Limits(max_tokens=512), parameters) for prompt in ids]
    while decoder.busy:
        decoder.step()
    return [_finished(request, tokenizer) for request in requests]


def _finished(request: Request, tokenizer: Any) -> Generation:
    transcript = request.transcript()
    start, separators = len(request.controller.prompt.ids), request.controller.separators
    ids = transcript.ids[start:]
    reason = str(request.controller.finish_reason)
    return Generation(transcript, ids, tokenizer.decode(ids), reason, statistics(transcript, start, separators))
