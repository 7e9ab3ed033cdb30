"""What a forward needs to know of strands: the pages that they share in part, and where their tokens stand."""

from __future__ import annotations

from typing import Any

import torch

from multiverse_sglang.attention.groups import groups
from multiverse_sglang.channels import GROUPS, SEGMENTS
from multiverse_sglang.scheduler.single_pass import pieces
from multiverse_sglang.scheduler.slots import SlotPool
from multiverse_sglang.scheduler.tree import member_of


def prepare_forward(pool: SlotPool, batch: Any, forward: Any) -> None:
    """Copy the pages that branches share in part; add each strand's position delta to what came of lengths."""
    pool.copy()
    if forward.forward_mode.is_extend():
        found = pieces(batch)
        deltas, lengths = [piece.shift for piece in found], [piece.length for piece in found]
        if any(piece.intervals is not None for piece in found):
            setattr(forward, SEGMENTS, found)
    else:
        members = [member_of(request) for request in batch.reqs or ()]
        deltas, lengths = [0 if member is None else member.delta for member in members], [1] * len(members)
        setattr(forward, GROUPS, groups(batch.reqs or ()))
    if not any(deltas):
        return
    offsets = torch.tensor(deltas, dtype=forward.positions.dtype).repeat_interleave(torch.tensor(lengths))
    positions = forward.positions.clone()
    positions[: len(offsets)] += offsets.to(positions.device, non_blocking=True)
    forward.positions = positions
