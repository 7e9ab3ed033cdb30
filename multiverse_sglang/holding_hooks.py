"""Rows of the hook table (`multiverse_sglang/hooks.py`): how branches are held, by whose time; penalties."""

from __future__ import annotations

from multiverse_sglang.rows import reads, wraps

_MANAGERS = "sglang.srt.managers"
_SCHEDULER = f"{_MANAGERS}.scheduler:Scheduler"
_BATCH = f"{_MANAGERS}.schedule_batch:ScheduleBatch"
_ADDER = f"{_MANAGERS}.schedule_policy:PrefillAdder"
_RECEIVER = f"{_MANAGERS}.scheduler_components.request_receiver:SchedulerRequestReceiver"
_HOLD = "requests that may be held between steps"
_PENALTY = "sglang.srt.sampling.penaltylib"
_PENALTIES = "penalizers that ask requests for what they count"

HOLDING_HOOKS = (
    reads(f"{_BATCH}.filter_batch", ("keep_indices",), "hold branches", _HOLD),
    reads(f"{_SCHEDULER}._build_hisparse_decode_batch", ("reqs",), "a batch of those that are released", _HOLD),
    reads(f"{_BATCH}.merge_batch", ("other",), "let them decode again", _HOLD),
    wraps(f"{_SCHEDULER}.get_num_allocatable_reqs", ("running_bs",), "they keep their places", _HOLD),
    reads(f"{_ADDER}._get_running_request_total_token_offset", ("req",), "and the slots that they may take", _HOLD),
    wraps(f"{_BATCH}.cumulate_penalty_output_tokens", (), "count what was held as if it had gone on", _PENALTIES),
    *(reads(f"{_PENALTY}:Batched{kind}Penalizer", (f"{kind.lower()}_penalties", f"cumulated_{kind.lower()}_penalties"),
            "complete its counts", _PENALTIES) for kind in ("Frequency", "Presence", "Repetition")),
    reads(f"{_PENALTY}:BatchedMinNewTokensPenalizer", ("len_output_tokens",), "the same", _PENALTIES),
    reads(f"{_RECEIVER}.recv_requests", ("local_reqs",), "send the first rank's time to all, as its timeouts go",
          "a time that SGLang broadcasts"),
    reads(_SCHEDULER, ("request_receiver",), "stand in its place", "a time that SGLang broadcasts"),
)  # fmt: skip
