"""Rows of the hook table (`multiverse_vllm/hooks.py`): what is touched where requests come in and answers go out."""

from __future__ import annotations

from multiverse.serving.hooks import Hook
from multiverse_vllm.worker.hooks import SCORES

_STATE = "vllm.v1.engine.output_processor:RequestState"
_LOGGERS = "vllm.v1.metrics.loggers:StatLoggerManager"
_DETOKENIZER = "vllm.v1.engine.detokenizer"
_CHAT = "vllm.entrypoints.openai.chat_completion"
_COMPLETION = "vllm.entrypoints.openai.completion"
_BEAMS = "vllm.entrypoints.generate.beam_search"
_STOPS = "stop strings that an engine core may look for"
FIELD = "a field for plugins in request outputs"
METRICS = "statistics of plugins in SchedulerStats"
_BODY = "fields of plugins in the bodies of requests and responses"
_PLAIN = "sampling parameters that a plugin may complete"

FRONTEND_HOOKS = (
    Hook("vllm.v1.engine.input_processor:InputProcessor.process_inputs", ("request_id", "prompt", "params"), True,
         "refuse wrong request fields while they are an HTTP 400", "0.31", "request validation by plugins"),
    Hook("vllm.v1.engine.input_processor:InputProcessor", ("model_config", "vllm_config"), False,
         "refuse what can't be beside drafts", "0.31", "request validation by plugins"),
    Hook("vllm.engine.arg_utils:EngineArgs.create_engine_config", (), True,
         "add the mask of strict mode; wrap the server if there is one", "0.18", "logits processors of active plugins"),
    Hook("vllm.engine.arg_utils:EngineArgs.add_cli_args", ("parser",), True,
         "show --multiverse-* in vllm serve --help", "0.18", "plugins that add command line options"),
    Hook("vllm.v1.engine.output_processor:OutputProcessor.process_outputs", ("engine_core_outputs",), True,
         "take records, events and stop strings out of what the scheduler sends", "0.31", FIELD),
    Hook("vllm.v1.engine.output_processor:OutputProcessor", ("request_states",), False,
         "find the requests that they are about", "0.31", FIELD),
    Hook(f"{_STATE}._new_completion_output", ("token_ids", "finish_reason", "stop_reason"), True,
         "put them on the output of their choice", "0.31", FIELD),
    Hook("vllm.v1.engine.output_processor:RequestOutputCollector.put", ("output",), True,
         "what raises as outputs are merged ends their request, not the server", "0.31", FIELD),
    Hook("vllm.outputs:RequestOutput.add", ("next_output", "aggregate"), True,
         "keep them when outputs are merged", "0.31", FIELD),
    Hook(f"{_LOGGERS}.__init__", ("vllm_config",), True, "make the metrics", "0.18", METRICS),
    Hook(_LOGGERS, ("engine_indexes",), False, "for each engine", "0.31", METRICS),
    Hook(f"{_LOGGERS}.record", ("scheduler_stats", "engine_idx"), True,
         "enter what was counted into them", "0.18", METRICS),
    Hook("vllm.outputs:WeightVersionSpan", ("version", "start", "end"), False,
         "tell it in document order", "0.32", "weight versions by where a token was sampled"),
    Hook(f"{_DETOKENIZER}:IncrementalDetokenizer.from_new_request", ("tokenizer", "request"), True,
         "no stop string is found across strands or in what the engine wrote", "0.31", _STOPS),
    Hook(f"{_DETOKENIZER}:BaseIncrementalDetokenizer.update", ("new_token_ids", "stop_terminated"), True,
         "cut the text at the one that the scheduler found", "0.31", _STOPS),
    Hook(f"{_DETOKENIZER}:check_stop_strings", ("output_text", "new_char_count", "stop", "include_in_output"), False,
         "cut as vLLM does", "0.31", _STOPS),
    Hook("vllm.v1.engine.logprobs:LogprobsProcessor._update_prompt_logprobs", ("prompt_logprobs_tensors",), True,
         "no entry for a prompt token that nothing predicts", "0.31", SCORES),
)  # fmt: skip

LLM_HOOKS = (Hook(f"{_BEAMS}.offline:SamplingParams", ("extra_args",), True, "decode beams plainly", "0.31", _PLAIN),)
"""Checked only where the class `LLM` is used, which has imported them."""

API_HOOKS = (
    Hook(f"{_BEAMS}.online:SamplingParams", ("extra_args",), True, "decode beams plainly", "0.31", _PLAIN),
    Hook(f"{_CHAT}.protocol:ChatCompletionRequest.to_sampling_params", (), True, "read the field", "0.18", _BODY),
    Hook(f"{_COMPLETION}.protocol:CompletionRequest.to_sampling_params", (), True, "read the field", "0.18", _BODY),
    Hook(f"{_CHAT}.protocol:ChatCompletionRequest.to_beam_search_params", (), True,
         "refuse the field multiverse", "0.31", _BODY),
    Hook(f"{_COMPLETION}.protocol:CompletionRequest.to_beam_search_params", (), True,
         "refuse the field multiverse", "0.31", _BODY),
    Hook("vllm.entrypoints.openai.responses.protocol:ResponsesRequest.to_sampling_params", (), True,
         "refuse the field multiverse", "0.31", _BODY),
    Hook(f"{_CHAT}.serving:OpenAIServingChat.create_chat_completion", ("request", "raw_request"), True,
         "refuse the field multiverse in other APIs' requests", "0.31", _BODY),
    Hook(f"{_CHAT}.serving:OpenAIServingChat.chat_completion_stream_generator",
         ("request", "result_generator", "tokenizer"), True, "add events, trees, figures to a stream", "0.31", _BODY),
    Hook(f"{_CHAT}.serving:OpenAIServingChat.chat_completion_full_generator",
         ("request", "result_generator", "tokenizer"), True, "add trees, figures to an answer", "0.31", _BODY),
    Hook(f"{_COMPLETION}.serving:OpenAIServingCompletion.completion_stream_generator",
         ("request", "result_generator", "tokenizer"), True, "add events, trees, figures to a stream", "0.31", _BODY),
    Hook(f"{_COMPLETION}.serving:OpenAIServingCompletion.request_output_to_completion_response",
         ("request", "final_res_batch", "tokenizer"), True, "add trees, figures to an answer", "0.31", _BODY),
    *(Hook(f"{serving}", ("default_sampling_params",), False,
           "whether special tokens are text, if a request does not say so", "0.31", _BODY)
      for serving in (f"{_CHAT}.serving:OpenAIServingChat", f"{_COMPLETION}.serving:OpenAIServingCompletion")),
)  # fmt: skip
"""Checked only where HTTP is served: importing vLLM's server takes seconds."""
