"""Passes of `shared_prefix` on a CPU, many at once: what they read is gathered, padded, and attended to by one kernel.

What stands side by side in memory is not gathered (`runs`). Of the rest, as much is gathered at once as fits the
processor's cache, for it is read again at once. Everything that depends on the step only, who attends to what, is made
once and used by all layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import torch

from multiverse.attention.runs import FUSED, Views, apart, split
from multiverse.attention.shared_prefix import Pass, merge

BATCH_SLOTS = 4096
"""Slots that are gathered at once, unless one pass needs more."""
BATCH_COST = 500
"""What one more batch costs, if gathering a slot costs 1 and attending to it 1 per query."""
WORTH = 1500
"""Reads of slots that a group has to save in a decode step: its pass has to be merged with others."""
QUERIES = 128
"""Queries of an extend that attend at once. It bounds the mask, and what a prompt reads that it doesn't see."""


def extend(prefixes: Sequence[int], lengths: Sequence[int]) -> list[Pass]:
    """The passes of an extend.

    Args:
        prefixes: slots that each row has already.
        lengths: tokens that it is extended by, its queries; they are numbered row after row.
    """
    passes, first = [], 0
    for row, (prefix, length) in enumerate(zip(prefixes, lengths, strict=True)):
        for start, stop in pairwise([*range(0, length, QUERIES), length]):
            passes.append(Pass(range(first + start, first + stop), row, 0, prefix + stop, causal=True))
        first += length
    return passes


class BatchedAttention:
    """Attention of one step after the other, each prepared once for all layers of a model."""

    def __init__(self) -> None:
        self._batches: list[_Batch | Views] = []
        self._merged = False
        self._keys, self._values = _Gathered(), _Gathered()

    def prepare(self, passes: Iterable[Pass], table: torch.Tensor, rows: torch.Tensor, dtype: torch.dtype) -> None:
        """Take the passes of a step.

        Args:
            passes: every query is in one at least.
            table: slots of sequences, `[sequences, slots at least]`, of any integer type.
            rows: which sequence each row is, int64 `[rows]`.
            dtype: of the queries.
        """
        runs, others = split(passes, table, rows)
        gathered = [_Batch(batch, table, rows, dtype, self._keys, self._values) for batch in batches(others)]
        self._batches = [*map(Views, apart(runs)), *gathered]
        queries = [query for batch in self._batches for query in set(batch.queries.tolist())]
        self._merged = len(queries) > len(set(queries))

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        """Attention in one layer.

        Args:
            query: `[queries, heads, width]`, as many as were prepared for.
            key, value: of all slots, `[slots, kv heads, width]`; each KV head serves as many consecutive heads.
            scale: of the scores.

        Returns:
            `[queries, heads, width]`.
        """
        output = torch.zeros(query.shape, dtype=query.dtype)
        precise = torch.promote_types(query.dtype, torch.float32)  # the kernel's own
        lse = torch.full(query.shape[:2], -torch.inf, dtype=precise) if self._merged else None
        for batch in self._batches:
            found, found_lse = batch.attend(query, key, value, scale)
            at = batch.queries
            if lse is None:
                output[at] = found
            else:
                output[at], lse[at] = merge(output[at], lse[at], found, found_lse)
        return output


class _Gathered:
    """Keys or values of some slots side by side, always in the same memory."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def __call__(self, cache: torch.Tensor, slots: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Those of `slots`, `[slots, kv heads, width]`, valid until the next call."""
        wanted = len(slots) * cache[0].numel()
        if self._memory.dtype != cache.dtype or self._memory.numel() < wanted:
            self._memory = torch.empty(wanted, dtype=cache.dtype)
        found = self._memory[:wanted].view(len(slots), *cache.shape[1:])
        torch.index_select(cache, 0, slots, out=found)
        return found if dtype == cache.dtype else found.to(dtype)


class _Batch:
    """Passes that are padded to the longest of them.

    Padding repeats a pass's last slot, which is masked, and its last query, which then has the same result twice.

    Attributes:
        queries: who attends, pass after pass, int64.
    """

    def __init__(
        self,
        passes: Sequence[Pass],
        table: torch.Tensor,
        rows: torch.Tensor,
        dtype: torch.dtype,
        keys: _Gathered,
        values: _Gathered,
    ) -> None:
        wide = max(len(part.queries) for part in passes)
        shape = [(part.row, part.start, part.stop - 1, len(part.queries)) for part in passes]
        row, first, last, count = torch.tensor(shape).T[..., None]
        offsets = torch.arange(max(part.slots for part in passes))
        self._keys, self._values = keys, values
        self._slots = table[rows[row], torch.minimum(first + offsets, last)].flatten().long()
        self.queries = torch.tensor([q for part in passes for q in _padded(part.queries, wide)])
        seen = last - first
        if wide > 1 and any(part.causal for part in passes):
            causal = torch.tensor([part.causal for part in passes])[:, None]
            seen = seen - causal * (count - 1 - torch.arange(wide)).clamp(min=0)
        hidden = offsets > seen[..., None]
        self._mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf) if hidden.any() else None
        self._masks: dict[int, torch.Tensor] = {}
        self._passes, self._wide = len(passes), wide

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Results and log-sum-exp of `queries`; the queries of heads that share a KV head attend side by side."""
        keys, values = self._keys(key, self._slots, query.dtype), self._values(value, self._slots, query.dtype)
        passes, wide, (heads, width), kv_heads = self._passes, self._wide, query.shape[1:], keys.shape[1]
        share = heads // kv_heads
        found, lse = FUSED(
            query[self.queries].view(passes, wide, kv_heads, share, width).transpose(1, 2).flatten(2, 3),
            keys.view(passes, -1, kv_heads, width).transpose(1, 2),
            values.view(passes, -1, kv_heads, width).transpose(1, 2),
            attn_mask=self._mask_for(share),
            scale=scale,
        )
        found = found.view(passes, kv_heads, wide, share, width).transpose(1, 2)
        lse = lse.view(passes, kv_heads, wide, share).transpose(1, 2)
        return found.reshape(-1, heads, width), lse.reshape(-1, heads)

    def _mask_for(self, share: int) -> torch.Tensor | None:
        """What is added to scores, `[passes, 1, queries x share or 1, slots]`."""
        if self._mask is None or self._mask.shape[1] == 1:
            return None if self._mask is None else self._mask[:, None]
        if share not in self._masks:
            self._masks[share] = self._mask.repeat_interleave(share, dim=1)[:, None]
        return self._masks[share]


def _padded(queries: Sequence[int], length: int) -> list[int]:
    return [*queries, *[queries[-1]] * (length - len(queries))]


def batches(passes: Iterable[Pass]) -> Iterator[list[Pass]]:
    """As few batches as waste less on padding than one more would cost. None has two passes of one query."""
    batch: list[Pass] = []
    queries: set[int] = set()
    longest = needed = 0
    for part in sorted(passes, key=lambda part: (len(part.queries), part.slots), reverse=True):
        longest, needed = max(longest, part.slots), needed + _cost(part, part.slots)
        slots = (len(batch) + 1) * longest
        waste = _cost((batch or [part])[0], slots) - needed
        if batch and (slots > BATCH_SLOTS or waste > BATCH_COST or not queries.isdisjoint(part.queries)):
            yield batch
            batch, queries, longest, needed = [], set(), part.slots, _cost(part, part.slots)
        batch.append(part)
        queries.update(part.queries)
    if batch:
        yield batch


def _cost(part: Pass, slots: int) -> int:
    """Of gathering so many slots for as many queries as `part` has."""
    return slots * (1 + len(part.queries))
