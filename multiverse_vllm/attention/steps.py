"""Decode steps of vLLM in which rows share a prefix: which are ours, and how they are computed. Not run on a GPU.

What a step holds is read from what vLLM's scheduler sends its workers, which is the same for both model runners: rows
that begin with the same blocks share them. A step is ours if each row has one token and sharing pays.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from multiverse.attention.batched import WORTH
from multiverse.attention.shared_prefix import Group, Pass, kv_tokens, plan
from multiverse.attention.tables import groups
from multiverse.attention.triton_decode import TritonAttention
from multiverse.serving.options import Options
from multiverse.serving.sharing import NEVER, gate

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput

log = logging.getLogger(__name__)


class SharedPrefixSteps:
    """What decides for a model runner whose KV cache was just made, and computes.

    Attributes:
        pending: whether the step that begins is ours; until its metadata are built.
        taken: how many steps were.
        kv_tokens: slots read per layer by all of them.
    """

    def __init__(self, runner: Any, layer: Any) -> None:
        spec = runner.kv_cache_config.kv_cache_groups[0].kv_cache_spec
        on_cuda = runner.device.type == "cuda"
        processors = torch.cuda.get_device_properties(runner.device).multi_processor_count if on_cuda else 1
        page = layer.kv_cache.shape[2]  # of the kernels; vLLM may divide a block of its own into several
        self._engine = TritonAttention(layer.impl.num_heads, layer.impl.num_kv_heads, page, processors)
        most = runner.vllm_config.scheduler_config.max_num_seqs
        self._every_row = torch.arange(most, dtype=torch.int32, device=runner.device)
        self._block, self._kv_heads = spec.block_size, runner.model_config.get_total_num_kv_heads()
        self._gate = gate(Options.from_environment().shared_prefix or NEVER)
        self._tables: dict[str, tuple[int, ...]] = {}
        self._requests: list[str] = []
        self._groups: list[Group] = []
        self._passes: list[Pass] = []
        self.taken = self.kv_tokens = 0

    @property
    def pending(self) -> bool:
        return bool(self._passes)

    def begin(self, output: SchedulerOutput) -> None:
        """Decide about the step that vLLM's scheduler sent."""
        self._follow(output)
        self._passes, scheduled = [], output.num_scheduled_tokens
        if not 1 < len(scheduled) == output.total_num_scheduled_tokens:
            return
        if list(scheduled) != self._requests:
            self._requests = list(scheduled)
            self._groups = groups([self._tables.get(request, ()) for request in scheduled], self._block)
        if paying := self._gate.paying(self._groups, self._kv_heads):
            by_request = _lengths(output)
            lengths = [by_request[request] for request in scheduled]
            held = [Group(rows, min(length, *(lengths[row] for row in rows))) for rows, length in paying]
            passes = plan(lengths, held, WORTH)
            self._passes = passes if any(len(part.queries) > 1 for part in passes) else []

    def _follow(self, output: SchedulerOutput) -> None:
        """Keep the blocks that requests come with: what they are given later they share with nobody."""
        come = {new.req_id: new.block_ids for new in output.scheduled_new_reqs}
        cached = output.scheduled_cached_reqs
        for request, blocks in zip(cached.req_ids, cached.new_block_ids, strict=True):
            if request in cached.resumed_req_ids:
                come[request] = blocks
        for request in output.finished_req_ids:
            self._tables.pop(request, None)
        self._tables |= {request: tuple(blocks[0]) for request, blocks in come.items()}
        if come:
            self._requests = []

    def order(self, requests: Sequence[str]) -> None:
        """Say in which rows of the batch the requests of the step are."""
        if self._passes:
            row_of = {request: row for row, request in enumerate(requests)}
            rows = [row_of[request] for request in self._requests]
            self._passes = [
                part._replace(queries=tuple(rows[query] for query in part.queries), row=rows[part.row])
                for part in self._passes
            ]

    def take(self) -> Step | None:
        """The step whose metadata are built now, if it is ours. What comes after it, a dummy run say, is vLLM's."""
        passes, self._passes = self._passes, []
        return Step(self, passes, len(self._requests)) if passes else None

    def prepare(self, passes: Sequence[Pass], table: torch.Tensor, queries: int) -> bool:
        """Plan for all layers. Whether that worked; if not, the step is vLLM's."""
        try:
            self._engine.prepare(passes, table, self._every_row[:queries], queries)
        except Exception:
            log.exception("a decode step that shares a prefix is computed by vLLM's own attention")
            return False
        self.taken, self.kv_tokens = self.taken + 1, self.kv_tokens + kv_tokens(passes)
        return True

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        """Of one layer of the step that was prepared, `[queries, heads, width]`."""
        return self._engine(query, key, value, scale)


class Step:
    """One step that is ours, as its metadata carry it. A graph that holds attention too replays vLLM's own instead."""

    def __init__(self, steps: SharedPrefixSteps, passes: list[Pass], queries: int) -> None:
        self._steps, self._passes, self._queries = steps, passes, queries
        self._ready: bool | None = None

    def attend(self, impl: Any, query: torch.Tensor, cache: torch.Tensor, table: torch.Tensor) -> torch.Tensor | None:
        """Attention of one layer, whose KV is written; None if it is vLLM's to compute.

        Args:
            impl: vLLM's, of the layer.
            query: `[tokens, heads, width]`, with padding behind those of the rows.
            cache: `[blocks, kv heads, block, 2 x width]`, in any layout.
            table: blocks of the rows, in the order of the batch.
        """
        if self._ready is None:
            self._ready = self._steps.prepare(self._passes, table, self._queries)
        if not self._ready:
            return None
        keys, values = cache.transpose(1, 2).split(impl.head_size, dim=-1)
        return self._steps.attend(query[: self._queries], keys, values, impl.scale)


def _lengths(output: SchedulerOutput) -> dict[str, int]:
    """How many tokens each row of a decode step attends to, the one that is computed included."""
    cached = output.scheduled_cached_reqs
    found = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
    found |= {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
    return {request: computed + 1 for request, computed in found.items()}
