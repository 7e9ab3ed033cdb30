"""Structured prefill in one forward: SGLang's attention is shown every segment of a prompt as a request of its own.

The sequence of a root, blocks and all, is one run, which SGLang admits, cuts into chunks and samples behind like any
other. Only attention (`attention.segments`) learns of the segments (`structure.layout`): a segment sees all of what is
visible to it, and itself causally, and that is what an ordinary extend over a row of those slots computes. It needs no
mask and no kernel, but what a layer attends to it has to write in the same forward. Backends that write the KV of the
whole batch before they attend do that. With any other, and if rows are short, blocks are replayed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from multiverse.decoding.controller import Controller
from multiverse.decoding.document import to_transcript
from multiverse.structure.layout import Interval, Segment, layout
from multiverse_sglang.attention import NAME
from multiverse_sglang.host import ModelRunner, RowPool, Scheduler

BACKENDS = (NAME, "torch_native", "triton", "fa3")
"""Write before they attend, in every layer. FlashInfer does if it prefills from pages; by default it does not."""


class BatchSegment(NamedTuple):
    """Consecutive tokens of a batch that see the same past: the part of a segment of the layout that is computed now.

    Attributes:
        row: of `req_to_token`; begins with the slots that they see, their own last.
        prefix: tokens before theirs in that row.
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
class SinglePassPrefill:
    """A sequence that is computed in one forward. Owns rows, which its member gives back (`Member.end_prefill`).

    Attributes:
        ids: its tokens.
        segments: its layout, from the first token that has no KV yet; the last one has no end.
        rows: one for each segment but the last, which needs none: however many prefills there are, a batch never
            has more segments than the pool has rows, and backends have buffers for no more.
        pool: SGLang's, that the rows are from.
    """

    ids: Sequence[int]
    segments: Sequence[Segment]
    rows: Sequence[int]
    pool: RowPool

    def release(self) -> None:
        """Give the rows back."""
        self.pool.free_rows(list(self.rows))

    def segments_of(self, own: int, start: int, end: int) -> Iterator[BatchSegment]:
        """The tokens `[start, end)` of the sequence, whose request has row `own`."""
        for segment, spare in zip(self.segments, (*self.rows, own), strict=True):
            first, last = max(start, segment.start), min(end, segment.end)
            if first >= last:
                continue
            unseen = sum(right - left for left, right in segment.hidden)
            shift = segment.position - segment.start
            if unseen:
                intervals = (*segment.visible(), (segment.start, last))
                yield BatchSegment(spare, first - unseen, last - first, shift, own, intervals)
            else:
                yield BatchSegment(own, first, last - first, shift, own, None)


class SinglePass:
    """Decides what is computed in one forward.

    Attributes:
        sound: whether anything may be, as SGLang is configured.
    """

    def __init__(self, scheduler: Scheduler) -> None:
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

    def begin(self, controller: Controller, start: int) -> SinglePassPrefill | None:
        """All that the root has to compute before it goes on, from the token at `start` on.

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
        return SinglePassPrefill(transcript.ids[:end], segments, self._rows.alloc_rows(spare), self._rows)


def _writes_first(runner: ModelRunner) -> bool:
    name = runner.prefill_attention_backend_str
    return name in BACKENDS or (name == "flashinfer" and getattr(runner.attn_backend, "use_paged", False))


def _open(segment: Segment) -> Segment:
    return Segment(segment.start, sys.maxsize, segment.position, segment.hidden, segment.predecessor)
