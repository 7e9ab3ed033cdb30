"""Structured prefill in one forward: SGLang's attention is shown every segment of a prompt as a request of its own.

The sequence of a root, blocks and all, is one run, which SGLang admits, cuts into chunks and samples behind like any
other. Only attention (`attention.segments`) learns of the segments (`structure.layout`): a segment sees all of what is
visible to it, and itself causally, and that is what an ordinary extend over a row of those slots computes. It needs no
mask and no kernel, but what a layer attends to it has to write in the same forward. Backends that write the KV of the
whole batch before they attend do that. With any other, and if rows are short, blocks are replayed. FlashInfer can be
given a mask instead (`attention.masks`): then requests are what they are, and no rows are needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from multiverse.decoding.controller import Controller
from multiverse.decoding.document import to_transcript
from multiverse.structure.layout import Interval, Segment, layout
from multiverse_sglang.attention import AROUND, NAME
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
        hidden: intervals of tokens of that sequence that they don't see.
        intervals: of that row, what `row` consists of; `None` if it is the same row.
    """

    row: int
    prefix: int
    length: int
    shift: int
    source: int
    hidden: tuple[Interval, ...] = ()
    intervals: tuple[Interval, ...] | None = None


@dataclass(eq=False)
class SinglePassPrefill:
    """A sequence that is computed in one forward. Owns rows, which its member gives back (`Member.end_prefill`).

    Attributes:
        ids: its tokens.
        segments: its layout, from the first token that has no KV yet; the last one has no end.
        rows: one for each segment but the last, which needs none: however many prefills there are, a batch never
            has more segments than the pool has rows, and backends have buffers for no more. None with a mask.
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
        rows = (*self.rows, own) if self.rows else [own] * len(self.segments)
        for segment, spare in zip(self.segments, rows, strict=True):
            first, last = max(start, segment.start), min(end, segment.end)
            if first >= last:
                continue
            unseen = sum(right - left for left, right in segment.hidden)
            shift = segment.position - segment.start
            if unseen and self.rows:
                intervals = (*segment.visible(), (segment.start, last))
                yield BatchSegment(spare, first - unseen, last - first, shift, own, segment.hidden, intervals)
            else:
                yield BatchSegment(own, first, last - first, shift, own, segment.hidden)


def obstacles(scheduler: Scheduler) -> dict[str, bool]:
    """What of SGLang's configuration keeps blocks from being computed in one forward, and whether it is there."""
    runner, arguments = scheduler.tp_worker.model_runner, scheduler.server_args
    return {
        "pages of more than one token (--page-size)": scheduler.page_size != 1,
        "latent attention (MLA)": runner.use_mla_backend,
        "slots that are translated": runner.kv_index_translator.reads_are_translated,
        "two-batch overlap (--enable-two-batch-overlap)": arguments.enable_two_batch_overlap,
        "PD multiplexing (--enable-pdmux)": arguments.enable_pdmux,
        "context parallelism (--attn-cp-size, --dcp-size)": (arguments.attn_cp_size, arguments.dcp_size) != (1, 1),
    }


def obstacles_to_segments(runner: ModelRunner) -> dict[str, bool]:
    """The same of attention that is shown segments."""
    name = AROUND.get(runner.prefill_attention_backend_str, runner.prefill_attention_backend_str)
    paged = name == "flashinfer" and getattr(runner.attn_backend, "use_paged", False)
    return {f"the attention of {name}, which may write KV after it": name not in BACKENDS and not paged}


class SinglePass:
    """Decides what is computed in one forward.

    Attributes:
        sound: whether anything may be, as SGLang is configured.
    """

    def __init__(self, scheduler: Scheduler, way: str = "auto") -> None:
        """`way` is `Options.prefill`. What keeps FlashInfer from a mask was refused before."""
        self._rows, self._masked = scheduler.req_to_token_pool, way == "mask"
        found = obstacles(scheduler)
        if not self._masked:
            found |= obstacles_to_segments(scheduler.tp_worker.model_runner)
        self.sound = way != "replay" and not any(found.values())

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
        spare = 0 if self._masked else len(segments) - 1
        structured = any(segment.hidden for segment in segments) and not segments[-1].hidden
        if not structured or self._rows.available_size() - spare < self._rows.size // 2:
            return None
        return SinglePassPrefill(transcript.ids[:end], segments, self._rows.alloc_rows(spare), self._rows)


def _open(segment: Segment) -> Segment:
    return Segment(segment.start, sys.maxsize, segment.position, segment.hidden, segment.predecessor)
