"""A reference decoder for any Hugging Face causal LM that really forks and really splices.

Slow and simple: every running strand is one row of a batch and is fed one token per step, sampled or injected. All it
does with structure is to carry out the controller's decisions on a cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multiverse.attention import dense_mask, positions
from multiverse.decoding.actions import Join, Start
from multiverse.decoding.budgets import Limits
from multiverse.decoding.controller import Controller
from multiverse.oracle.cache import KVBatch, prefill, splice
from multiverse.oracle.rows import Request, Row, Step
from multiverse.oracle.sampling import Sampling
from multiverse.structure.binding import Binding
from multiverse.structure.layout import Separators


class Decoder:
    """Decodes requests side by side.

    Args:
        model: a Hugging Face causal LM with full attention in every layer.
        binding: the dialect, bound to its tokenizer.
        separators: see `multiverse.structure.layout`.
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
        self._rows: list[Row] = []
        self._outside: list[Row] = []
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
        row = Row(request, controller.root, 0, layout.next_position)
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
                row.request.parked[row.strand.key] = row
            else:
                keep.append(i)
        extra = self._enter()
        if extra or len(keep) < len(self._rows):
            self._batch.rebuild(keep, [row.kv for row in extra if row.kv is not None])
            self._rows = [self._rows[i] for i in keep] + extra
            for row in extra:
                row.kv = None

    def _enter(self) -> list[Row]:
        """The rows that can join the batch now."""
        rows = []
        for row in self._outside:
            if row.drained:  # a prompt that ends with a goal forks before anything is fed
                row.request.parked[row.strand.key] = row
            else:
                rows.append(row)
        pending, self._outside, self._pending = self._pending, [], []
        for request, action in pending:
            entered = self._start(request, action) if isinstance(action, Start) else self._join(request, action)
            if entered is None:
                self._pending.append((request, action))
            else:
                rows.append(entered)
        alive = [row for row in rows if row.request.controller.finish_reason is None]
        self._pending = [(r, action) for r, action in self._pending if r.controller.finish_reason is None]
        return alive

    def _start(self, request: Request, action: Start) -> Row | None:
        """A row for a child: its parent's cache and nothing else. `None` while the parent isn't through."""
        assert action.strand.parent is not None
        parent = request.parked.get(action.strand.parent.key)
        if parent is None:
            return None
        assert parent.logits is not None
        row = Row(request, action.strand, 0, action.strand.position_at(0), kv=parent.kv)
        row.decide(parent.logits)
        return row

    def _join(self, request: Request, action: Join) -> Row | None:
        """The parent's row with the branches' cache behind its own. `None` while one of them isn't through."""
        parked, (_, children) = request.parked, action.strand.forks[-1]
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
        row.position = row.strand.position_at(row.fed)
        request.logprobs[row.strand.key].append(None)
        return row
