"""Rows of the hook table (`multiverse_sglang/hooks.py`): what is read of results, requests, pools and batches."""

from __future__ import annotations

from multiverse_sglang.rows import FIELDS, reads

_BATCH = "sglang.srt.managers.schedule_batch"
_SCHEDULER = "sglang.srt.managers.scheduler:Scheduler"
_TIMES = "sglang.srt.observability.req_time_stats:SchedulerReqTimeStats"
_PENALTY = "sglang.srt.sampling.penaltylib.orchestrator"
_MODE = "sglang.srt.model_executor.forward_batch_info:ForwardMode"
_FORWARD = "sglang.srt.model_executor.forward_batch_info:ForwardBatch"
_POOL = "sglang.srt.mem_cache.memory_pool:MHATokenToKVPool"
_MODEL = "sglang.srt.configs.model_config:ModelConfig"
_FORK = "a scheduler API to fork a request and to splice the KV of others"
_REFUSE = "a list of what a plugin's requests can't meet"
_ATTEND = "nothing"

RESULT_HOOKS = (
    reads(f"{_BATCH}:ReqLogprob", ("output_token_logprobs_val", "output_token_logprobs_idx",
          "output_top_logprobs_val", "output_top_logprobs_idx", "output_token_ids_logprobs_val",
          "output_token_ids_logprobs_idx"), "log-probabilities in document order", FIELDS),
    reads(f"{_BATCH}:Req.refresh_fill_ids", (), "what a run begins with", _FORK),
    reads(f"{_TIMES}.set_completion_time", (), "end a client's request", _FORK),
    reads(f"{_TIMES}.set_wait_queue_entry_time", (), "queue a run", _FORK),
    reads("sglang.srt.managers.io_struct:AbortReq", ("abort_message",), "say why a request ended", _FORK),
    reads("sglang.srt.managers.schedule_policy:PrefillAdder", ("memory_budget",), "count what is held", _FORK),
    reads("sglang.srt.mem_cache.prefill_budget:PrefillBudget", ("total_offset",), "count what is held", _FORK),
    reads("sglang.srt.managers.scheduler_components.pool_stats_observer:SchedulerPoolStatsObserver.get_pool_stats", (),
          "whether slots add up", "nothing"),
    reads("sglang.srt.sampling.sampling_batch_info:SamplingBatchInfo", ("penalizer_orchestrator",),
          "complete its counts", _FORK),
    reads(f"{_PENALTY}:BatchedPenalizerOrchestrator", ("is_required", "penalizers"), "complete its counts", _FORK),
    reads(f"{_PENALTY}:_BatchedPenalizer.is_prepared", (), "complete its counts", _FORK),
    reads("sglang.srt.runtime_context:get_parallel", (), "which ranks have metrics", "nothing"),
    reads(f"{_MODE}.is_decode", (), "steps in which strands share a prefix", _ATTEND),
    reads(f"{_MODE}.is_extend", (), "positions of prompts", _FORK),
    reads(_FORWARD, ("forward_mode", "out_cache_loc", "positions"), "see and shift what a forward computes", _FORK),
    reads(f"{_POOL}.get_key_buffer", ("layer_id",), "attend", _ATTEND),
    reads(f"{_POOL}.get_value_buffer", ("layer_id",), "attend", _ATTEND),
    reads(f"{_MODEL}.get_total_num_kv_heads", (), "see whether shared prefixes pay", _ATTEND),
    reads(_MODEL, ("model_is_mrope", "is_encoder_decoder", "hf_text_config"), "refuse models", _REFUSE),
    reads(_SCHEDULER, ("require_mlp_sync", "is_hybrid_swa", "is_hybrid_ssm", "is_generation", "dllm_config"),
          "refuse models and ways to serve them", _REFUSE),
    reads("sglang.srt.mem_cache.kv_index_translator:KVIndexTranslator", ("reads_are_translated",),
          "refuse slots that are not where they seem", _REFUSE),
    reads("sglang.srt.layers.radix_attention:AttentionType", ("DECODER",), "refuse layers", _REFUSE),
    reads("sglang.srt.environ:Envs", ("SGLANG_RUST_SERVER", "SGLANG_USE_MLX"), "refuse other runners", _REFUSE),
)  # fmt: skip
