"""Structured prefill in one forward: SGLang's attention is shown every segment of a prompt as a request of its own.

The sequence of a root, blocks and all, is one run, which SGLang admits, cuts into chunks and samples behind like any
other. Only attention learns of the segments (`structure.layout`): a segment sees all of what is visible to it, and
itself causally, and that is what an ordinary extend over a row of those slots computes. It needs no mask and no kernel,
but what a layer attends to it has to write in the same forward. Backends that write the KV of the whole batch before
they attend do that. With any other, and if rows are short, blocks are replayed.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import torch

from multiverse.decoding.controller import Controller
from multiverse.decoding.document import to_transcript
from multiverse.structure.layout import Interval, Segment, layout
from multiverse_sglang.attention import NAME
from multiverse_sglang.scheduler.tree import member_of

BACKENDS = (NAME, "torch_native", "triton", "fa3")
"""Write before they attend, in every layer. FlashInfer does if it prefills from pages; by default it does not."""


class Piece(NamedTuple):
    """Consecutive tokens of a batch that see the same past.

    Attributes:
        row: of `req_to_token`; begins with the slots that they see, their own last.
        prefix: how many slots come before theirs.
        length: how many tokens they are.
        shift: their positions minus their indices in the sequence of their request.
        source: the row of their request.
        intervals: of that row, what `row` consists of; `None` if it is the same row.
    """

    row: int
    prefix: int
    length: int
    shift: int
    source: int
    intervals: tuple[Interval, ...] | None


@dataclass(eq=False)
class Passage:
    """A sequence that is computed in one go.

    Attributes:
        ids: its tokens.
        segments: its layout, from the first token that has no KV yet; the last one has no end.
        rows: one for each segment but the last, which needs none: whatever number of passages there are, a batch never
            has more pieces than the pool has rows, and backends have buffers for no more.
        pool: SGLang's, that the rows are from.
    """

    ids: Sequence[int]
    segments: Sequence[Segment]
    rows: Sequence[int]
    pool: Any

    def release(self) -> None:
        """Give the rows back."""
        self.pool.free_rows(list(self.rows))

    def pieces(self, own: int, start: int, end: int) -> Iterator[Piece]:
        """The tokens `[start, end)` of the sequence, whose request has row `own`."""
        for segment, spare in zip(self.segments, (*self.rows, own), strict=True):
            first, last = max(start, segment.start), min(end, segment.end)
            if first >= last:
                continue
            unseen = sum(right - left for left, right in segment.hidden)
            shift = segment.position - segment.start
            if unseen:
                intervals = (*segment.visible(), (segment.start, last))
                yield Piece(spare, first - unseen, last - first, shift, own, intervals)
            else:
                yield Piece(own, first, last - first, shift, own, None)


class SinglePass:
    """Decides what is computed in one go.

    Attributes:
        sound: whether anything may be, as SGLang is configured.
    """

    def __init__(self, scheduler: Any) -> None:
        self._rows = scheduler.req_to_token_pool
        runner, arguments = scheduler.tp_worker.model_runner, scheduler.server_args
        self.sound = (
            _writes_first(runner)
            and scheduler.page_size == 1
            and not runner.use_mla_backend
            and not runner.kv_index_translator.reads_are_translated
            and not arguments.enable_two_batch_overlap
            and not arguments.enable_pdmux
            and arguments.attn_cp_size == arguments.dcp_size == 1
        )

    def begin(self, controller: Controller, start: int) -> Passage | None:
        """All that the root has to be given before it goes on, from the token at `start` on.

        `None` if there is no block in it, or no way. Half of the rows are left to requests.
        """
        if not self.sound:
            return None
        transcript, end = to_transcript(controller), controller.root.kv_length
        laid = layout(transcript, controller.separators, controller.binding.dialect.join)
        segments = [segment for segment in laid.segments if segment.end > start and segment.start < end]
        segments[-1] = _open(segments[-1])
        spare = len(segments) - 1
        structured = any(segment.hidden for segment in segments) and not segments[-1].hidden
        if not structured or self._rows.available_size() - spare < self._rows.size // 2:
            return None
        return Passage(transcript.ids[:end], segments, self._rows.alloc_rows(spare), self._rows)


def _writes_first(runner: Any) -> bool:
    name = runner.prefill_attention_backend_str
    return name in BACKENDS or (name == "flashinfer" and getattr(runner.attn_backend, "use_paged", False))


def _open(segment: Segment) -> Segment:
    return Segment(segment.start, sys.maxsize, segment.position, segment.hidden, segment.predecessor)


# --- in the forward --------------------------------------------------------------------------------------------------


def pieces(batch: Any) -> list[Piece]:
    """What an extend batch of SGLang consists of, in the order of its tokens."""
    found: list[Piece] = []
    for request, start, length in zip(batch.reqs, batch.prefix_lens, batch.extend_lens, strict=True):
        member, row = member_of(request), request.kv.req_pool_idx
        if member is not None and member.passage is not None:
            found.extend(member.passage.pieces(row, start, start + length))
        else:
            found.append(Piece(row, start, length, 0 if member is None else member.delta, row, None))
    return found


@contextmanager
def attending(runner: Any, found: Sequence[Piece], fail: Callable[[Exception], None]) -> Iterator[None]:
    """Let the model of `runner` attend to pieces; eagerly, since graphs were captured for requests.

    What goes wrong with pieces is handed to `fail`, and the batch is attended to as SGLang does.
    """
    backend, graphs = runner.attn_backend, runner.prefill_cuda_graph_runner
    runner.attn_backend, runner.prefill_cuda_graph_runner = PieceAttention(backend, found, fail), None
    try:
        yield
    finally:
        runner.attn_backend, runner.prefill_cuda_graph_runner = backend, graphs


class PieceAttention:
    """An attention backend of SGLang, which takes pieces for requests."""

    def __init__(self, backend: Any, found: Sequence[Piece], fail: Callable[[Exception], None]) -> None:
        self._backend = backend
        self._pieces = found
        self._fail = fail
        self._view: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def init_forward_metadata(self, forward: Any) -> None:
        """Write the rows, then plan for them."""
        try:
            self._write_rows()
            self._view = _view(forward, self._pieces)
        except Exception as error:
            self._fail(error)
            self._view = forward
        self._backend.init_forward_metadata(self._view)

    def _write_rows(self) -> None:
        table = self._backend.req_to_token_pool.req_to_token
        for piece in self._pieces:
            if piece.intervals is not None:
                slots = torch.cat([table[piece.source, start:end] for start, end in piece.intervals])
                table[piece.row, : len(slots)] = slots

    def forward(self, q: Any, k: Any, v: Any, layer: Any, forward: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """As SGLang's, for the batch that was planned for."""
        return self._backend.forward(q, k, v, layer, self._view, *args, **kwargs)


def _view(forward: Any, found: Sequence[Piece]) -> Any:
    """`forward` with pieces for requests. Its tokens and their slots are the same, in the same order."""
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
