"""Rows of the hook table (`multiverse_sglang/hooks.py`): what a rehearsal drives (`scheduler/rehearsal.py`)."""

from __future__ import annotations

from multiverse_sglang.rows import reads

_SCHEDULER = "sglang.srt.managers.scheduler:Scheduler"
_MESSAGES = "sglang.srt.managers.io_struct"
_PARAMETERS = "sglang.srt.sampling.sampling_params:SamplingParams"
_REPORTER = "sglang.srt.managers.scheduler_components.metrics_reporter"
_START = "a hook at the end of a scheduler's start"

REHEARSAL_HOOKS = (
    reads(f"{_SCHEDULER}.run_event_loop", (), "rehearse in it", _START),
    reads(f"{_SCHEDULER}.ingest_requests", (), "end it when nothing is left to do", _START),
    reads(f"{_SCHEDULER}.handle_generate_request", ("recv_req",), "ask for what is rehearsed", _START),
    reads(_SCHEDULER, ("gracefully_exit", "max_req_len", "max_new_tokens_limit", "model_config", "tokenizer"),
          "end its event loop; see whether there is room", _START),
    reads(_SCHEDULER, ("metrics_reporter", "metrics_collector", "idle_sleeper"),
          "count nothing of it, and don't sleep for want of clients", _START),
    reads("sglang.srt.mem_cache.memory_pool:KVCache", ("dtype",), "see whether KV is rounded", _START),
    reads(f"{_REPORTER}:SchedulerMetricsReporter", ("is_stats_logging_rank", "current_scheduler_metrics_enabled"),
          "log no steps", _START),
    reads(f"{_MESSAGES}:TokenizedGenerateReqInput", ("input_text", "input_ids", "input_embeds", "mm_inputs",
          "token_type_ids", "sampling_params", "return_logprob", "logprob_start_len", "top_logprobs_num",
          "token_ids_logprob", "stream"), "ask for what is rehearsed", _START),
    reads(_PARAMETERS, ("max_new_tokens", "temperature", "ignore_eos", "custom_params"), "the same", _START),
    reads(f"{_PARAMETERS}.normalize", ("tokenizer",), "the same", _START),
    reads("sglang.srt.managers.scheduler_components.output_sender:SenderWrapper.send_output", ("output", "recv_obj"),
          "read what would go to the detokenizer", _START),
    reads(f"{_MESSAGES}:BatchTokenIDOutput", ("output_ids", "output_token_logprobs_val", "input_token_logprobs_val"),
          "the same", _START),
)  # fmt: skip
