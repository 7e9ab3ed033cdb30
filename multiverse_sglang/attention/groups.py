"""Which rows of a decode batch were forked from one sequence: strands of a tree begin with their parents' KV slots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from multiverse.attention.shared_prefix import Group
from multiverse.decoding.strand import Strand
from multiverse_sglang.channels import GROUPS, STEPS
from multiverse_sglang.host import ModelRunner, Request
from multiverse_sglang.scheduler.tree import member_of


def groups(requests: Sequence[Request]) -> list[Group]:
    """Of all strands that were forked, those below it that decode in this batch.

    Rows are numbered as in the batch; what is shared is counted in slots. Those that a strand does not own are its
    parent's, so siblings share as many as none of them owns.
    """
    rows: dict[Strand, list[int]] = {}
    shared: dict[Strand, int] = {}
    for row, request in enumerate(requests):
        member = member_of(request)
        if member is None or member.run is not request:
            continue
        strand, owned_from = member.strand, request.kv.cache_protected_len
        while (parent := strand.parent) is not None:
            rows.setdefault(parent, []).append(row)
            shared[parent] = min(owned_from, shared.get(parent, owned_from))
            slots = member.tree.members[parent.key].slots
            strand, owned_from = parent, 0 if slots is None else slots.owned_from
    return [Group(tuple(among), shared[parent]) for parent, among in rows.items() if len(among) > 1]


class Steps(Protocol):
    """`around.SharedPrefixSteps`, whose module takes seconds to import."""

    def expect(self, groups: Sequence[Group]) -> bool: ...
    def forget(self) -> None: ...


@contextmanager
def told(runner: ModelRunner, groups: Sequence[Group]) -> Iterator[None]:
    """Tell the backend of `runner` who shares what in the next forward; if that is ours, it runs without a graph."""
    backend, graphs = runner.attn_backend, runner.decode_cuda_graph_runner
    steps: Steps | None = getattr(backend, STEPS, None)
    if steps is None:
        if hasattr(backend, GROUPS):
            setattr(backend, GROUPS, groups)
        yield
        return
    if steps.expect(groups):
        runner.decode_cuda_graph_runner = None
    try:
        yield
    finally:
        runner.decode_cuda_graph_runner = graphs
        steps.forget()
