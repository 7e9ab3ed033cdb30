"""Rows of the hook table (`multiverse_sglang/hooks.py`): speculative decoding (`scheduler/drafts.py`)."""

from __future__ import annotations

from multiverse_sglang.rows import reads

_SIZING = "sglang.srt.mem_cache.allocation_sizing"
_FORWARD = "sglang.srt.model_executor.forward_batch_info"
_SPLICE = "a scheduler API to fork a request and to splice the KV of others"
_POSITIONS = "a position delta per request"

DRAFT_HOOKS = (
    reads("sglang.srt.runtime_context:get_spec", (), "how many tokens are drafted", _SPLICE),
    reads("sglang.srt.managers.scheduler:Scheduler", ("spec_algorithm",), "whether any are", "nothing"),
    reads("sglang.srt.speculative.spec_info:SpeculativeAlgorithm.is_none", (), "the same", "nothing"),
    reads("sglang.srt.managers.utils:GenerationBatchResult", ("accept_lens",), "see what of them was accepted",
          "a per-token request callback"),
    reads("sglang.srt.managers.schedule_batch:Req", ("spec_num_correct_drafts",), "likewise, before a fork", "nothing"),
    reads(f"{_SIZING}:get_alloc_reserve_per_decode", (), "slots that drafts may need", _SPLICE),
    reads(f"{_SIZING}:page_aligned_decode_alloc_lens", ("reqs", "reserve", "page_size"), "the same", _SPLICE),
    reads(f"{_FORWARD}:ForwardMode.is_target_verify", (), "drafts of a joined strand at their positions", _POSITIONS),
    reads("sglang.srt.speculative.ngram_info:NgramVerifyInput.__init__", ("draft_token_num", "custom_mask"),
          "the same; attend to them", _POSITIONS),
)  # fmt: skip
