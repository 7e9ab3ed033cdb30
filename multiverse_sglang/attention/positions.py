"""What a forward needs to know of strands: the pages that they share in part, and where their tokens stand."""

from __future__ import annotations

import torch

from multiverse_sglang.attention.groups import groups
from multiverse_sglang.attention.segments import segments_of
from multiverse_sglang.channels import GROUPS, SEGMENTS
from multiverse_sglang.host import Batch, ForwardBatch
from multiverse_sglang.scheduler.slots import SlotPool
from multiverse_sglang.scheduler.tree import member_of


def prepare_forward(pool: SlotPool, batch: Batch, forward: ForwardBatch) -> None:
    """Copy the pages that branches share in part; add each strand's position delta to what came of lengths."""
    pool.moves.run()
    mode = forward.forward_mode
    verifies = mode.is_target_verify()
    if mode.is_extend() and not verifies:
        found = segments_of(batch)
        deltas, lengths = [segment.shift for segment in found], [segment.length for segment in found]
        if any(segment.hidden for segment in found):
            setattr(forward, SEGMENTS, found)
    else:
        members = [member_of(request) for request in batch.reqs or ()]
        tokens = forward.spec_info.draft_token_num if verifies else 1
        deltas, lengths = [0 if member is None else member.delta for member in members], [tokens] * len(members)
        if not verifies:
            setattr(forward, GROUPS, groups(batch.reqs or ()))
    if not any(deltas):
        return
    offsets = torch.tensor(deltas, dtype=forward.positions.dtype).repeat_interleave(torch.tensor(lengths))
    positions = forward.positions.clone()
    positions[: len(offsets)] += offsets.to(positions.device, non_blocking=True)
    forward.positions = positions
