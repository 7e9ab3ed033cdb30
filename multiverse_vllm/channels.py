"""How our data crosses vLLM: every attribute and field of its objects that carries some, who writes it, who reads it.

First what travels between processes (front end, engine core, workers), then what stays on an object within one.
"""

from __future__ import annotations

from multiverse.wire.responses import FIELD

OPTIONS = FIELD
"""`SamplingParams.extra_args[...]`: a request's options. From whoever makes it (over HTTP `frontend.api`) to
`sampling.request_options`, in the front end and in the scheduler."""
STRICT_START = "multiverse_strict"
"""`SamplingParams.extra_args[...]`: a `StrictStart`. From `scheduler.parameters` to `worker.strict`."""
PLAN = "multiverse"
"""`SchedulerOutput`: the step's `plan.StepPlan`, if there is anything in it. From `scheduler.steps` to
`worker.runners`, and with that step's results back to `scheduler.steps`."""
SCORES = "prompt_logprobs_dict"
"""`ModelRunnerOutput`: beside vLLM's own, what a plan's `scorings` ask for. From `worker.runners` to
`scheduler.answers`, which takes it out again before vLLM looks."""
RECORD, EVENTS, VERSIONS = "multiverse_record", "multiverse_events", "multiverse_weight_versions"
"""`EngineCoreOutput.kv_transfer_params[...]`, the one field that vLLM passes on as it is and that is free, as KV
connectors are refused: the record of a finished request; what happened since its last output; which weights said what.
From `scheduler.answers` to `frontend.outputs`."""
FIGURES = FIELD
"""`SchedulerStats.kv_connector_stats[...]`, free for the same reason: what was counted. From `scheduler.scheduler` to
`frontend.metrics`."""

EXTRAS = "multiverse"
"""`CompletionOutput`: a record, and under `events` what happened since the last output. From `frontend.outputs` to
`frontend.api` and to users of the class `LLM`."""
PENDING, SPANS = "_multiverse_pending", "_multiverse_spans"
"""`RequestState`: extras and weight versions for its next output, which its own `_new_completion_output` then adds.
Within `frontend.outputs`."""
ENDED_AT = "_multiverse_ended_at"
"""A detokenizer that looks for no stop strings: the one at which the scheduler ended the answer, once it did; its own
`update` then cuts the text there. Within `frontend.stops`."""
EXPORTERS = "_multiverse_exporters"
"""`StatLoggerManager`: from an engine's index to its `Exporter`. Within `frontend.metrics`."""
MOVER, SHIFTS, SCORINGS = "_multiverse_mover", "_multiverse_shifts", "_multiverse_scorings"
"""A model runner, and `SCORINGS` V2's `PromptLogprobsWorker` too: how tokens are moved; of the step's plan, what is
wanted after its beginning. Within `worker.runners`."""
STEPS, STEP = "_multiverse_steps", "_multiverse_step"
"""A model runner: the `SharedPrefixSteps` of our attention backend, or None. The metadata of a step: that step, if it
is ours. Within `worker.runners` and `attention`."""
INSTALLED = "_multiverse"
"""What was wrapped once: `SchedulerConfig.get_scheduler_cls`, `ChatCompletionRequest`."""
