"""Attention to segments of a prompt (`scheduler.single_pass`): each is shown to SGLang's backend as a request."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch

from multiverse_sglang.host import Batch, ForwardBatch, ModelRunner
from multiverse_sglang.scheduler.single_pass import BatchSegment
from multiverse_sglang.scheduler.tree import member_of


def segments_of(batch: Batch) -> list[BatchSegment]:
    """What an extend batch of SGLang consists of, in the order of its tokens."""
    found: list[BatchSegment] = []
    for request, start, length in zip(batch.reqs, batch.prefix_lens, batch.extend_lens, strict=True):
        member, row = member_of(request), request.kv.req_pool_idx
        if member is not None and member.prefill is not None:
            found.extend(member.prefill.segments_of(row, start, start + length))
        else:
            found.append(BatchSegment(row, start, length, 0 if member is None else member.delta, row))
    return found


@contextmanager
def attending(runner: ModelRunner, shown: object) -> Iterator[None]:
    """Let the model of `runner` attend by the backend `shown`; eagerly, since graphs were captured for requests."""
    backend, graphs = runner.attn_backend, runner.prefill_cuda_graph_runner
    runner.attn_backend, runner.prefill_cuda_graph_runner = shown, None
    try:
        yield
    finally:
        runner.attn_backend, runner.prefill_cuda_graph_runner = backend, graphs


class SegmentAttention:
    """An attention backend of SGLang, which takes segments for requests.

    What goes wrong with segments is handed to `fail`, and the batch is attended to as SGLang does.
    """

    def __init__(self, backend: Any, found: Sequence[BatchSegment], fail: Callable[[Exception], None]) -> None:
        self._backend, self._segments, self._fail = backend, found, fail
        self._view: ForwardBatch | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def init_forward_metadata(self, forward: ForwardBatch) -> None:
        """Write the rows, then plan for them."""
        try:
            self._write_rows()
            self._view = _view(forward, self._segments)
        except Exception as error:
            self._fail(error)
            self._view = forward
        self._backend.init_forward_metadata(self._view)

    def _write_rows(self) -> None:
        table = self._backend.req_to_token_pool.req_to_token
        for segment in self._segments:
            if segment.intervals is not None:
                slots = torch.cat([table[segment.source, start:end] for start, end in segment.intervals])
                table[segment.row, : len(slots)] = slots

    def forward(self, q: Any, k: Any, v: Any, layer: Any, _: Any, *args: Any, **kwargs: Any) -> Any:
        """As SGLang's, for the batch that was planned for."""
        return self._backend.forward(q, k, v, layer, self._view, *args, **kwargs)


def _view(forward: ForwardBatch, found: Sequence[BatchSegment]) -> ForwardBatch:
    """`forward` with segments for requests. Its tokens and their slots are the same, in the same order."""
    view = copy.copy(forward)

    def move(values: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype).to(forward.seq_lens.device, non_blocking=True)

    rows, lengths, prefixes = [p.row for p in found], [p.length for p in found], [p.prefix for p in found]
    totals = [prefix + length for prefix, length in zip(prefixes, lengths, strict=True)]
    view.batch_size = len(found)
    view.req_pool_indices_cpu = torch.tensor(rows, dtype=torch.int64)
    view.req_pool_indices = move(rows, forward.req_pool_indices.dtype)
    view.seq_lens_cpu = torch.tensor(totals, dtype=torch.int64)
    view.seq_lens, view.seq_lens_sum = move(totals, forward.seq_lens.dtype), sum(totals)
    view.orig_seq_lens = move(totals, torch.int32)
    view.extend_prefix_lens_cpu, view.extend_seq_lens_cpu = prefixes, lengths
    view.extend_prefix_lens, view.extend_seq_lens = move(prefixes, torch.int32), move(lengths, torch.int32)
    view.extend_start_loc = move([0, *accumulate(lengths)][:-1], torch.int32)
    return view
