"""By target of the hook table: how SGLang's registry has to apply what, and which room that leads to."""

from __future__ import annotations

from sglang.srt.plugins.hook_registry import HookType

from multiverse_sglang.attention import wrappers as forwards
from multiverse_sglang.frontend import answers, arguments, detokenizer
from multiverse_sglang.hooks import (
    ALLOCATION,
    ARGUMENTS,
    BATCH,
    CHECKER,
    DETOKENIZER,
    FORWARD,
    FRONT,
    OBSERVER,
    RELEASE,
    REQUEST,
    RUNNER,
    SAMPLING,
    SCHEDULER,
    STREAMER,
)
from multiverse_sglang.registry import Wrappers
from multiverse_sglang.scheduler import wrappers as steps

WRAPPERS: Wrappers = {
    f"{ARGUMENTS}:prepare_server_args": (HookType.AROUND, arguments.prepare_server_args),
    f"{ARGUMENTS}:ServerArgs.add_cli_args": (HookType.AFTER, arguments.add_cli_args),
    f"{SCHEDULER}.__init__": (HookType.AROUND, steps.scheduler_init),
    f"{SCHEDULER}.get_output_streamer_class": (HookType.AFTER, steps.get_output_streamer_class),
    f"{SCHEDULER}.get_prefill_adder_class": (HookType.AFTER, steps.get_prefill_adder_class),
    f"{SCHEDULER}._add_request_to_queue": (HookType.AROUND, steps.add_request_to_queue),
    f"{SCHEDULER}.get_next_batch_to_run": (HookType.AROUND, steps.get_next_batch_to_run),
    f"{SCHEDULER}.get_num_allocatable_reqs": (HookType.AROUND, steps.get_num_allocatable_reqs),
    f"{SCHEDULER}.process_batch_result": (HookType.AROUND, steps.process_batch_result),
    f"{SCHEDULER}._abort_on_queued_limit": (HookType.AROUND, steps.abort_on_queued_limit),
    f"{SCHEDULER}.is_fully_idle": (HookType.AFTER, steps.is_fully_idle),
    f"{SCHEDULER}.on_idle": (HookType.AFTER, steps.on_idle),
    f"{SCHEDULER}.pause_generation": (HookType.AROUND, steps.pause_generation),
    f"{SCHEDULER}.record_weight_version_change": (HookType.AROUND, steps.record_weight_version_change),
    f"{SCHEDULER}.abort_request": (HookType.AROUND, steps.abort_request),
    f"{REQUEST}.init_next_round_input": (HookType.AROUND, steps.init_next_round_input),
    RELEASE: (HookType.BEFORE, steps.release_req),
    f"{BATCH}._get_decode_retraction_order": (HookType.AFTER, steps.get_decode_retraction_order),
    f"{BATCH}.retract_decode": (HookType.AROUND, steps.retract_decode),
    f"{BATCH}.cumulate_penalty_output_tokens": (HookType.AROUND, forwards.cumulate_penalty_output_tokens),
    f"{ALLOCATION}:_prefix_kv_indices": (HookType.AROUND, forwards.prefix_kv_indices),
    f"{ALLOCATION}:get_last_loc": (HookType.AROUND, forwards.get_last_loc),
    f"{FORWARD}.init_new": (HookType.AFTER, forwards.forward_batch_init_new),
    f"{RUNNER}.forward": (HookType.AROUND, forwards.model_forward),
    f"{SAMPLING}.from_schedule_batch": (HookType.AFTER, forwards.from_schedule_batch),
    f"{DETOKENIZER}.trim_matched_stop": (HookType.AROUND, detokenizer.trim_matched_stop),
    f"{FRONT}.update_request_meta_info": (HookType.AROUND, answers.update_request_meta_info),
    f"{FRONT}.generate_request": (HookType.AROUND, answers.generate_request),
    f"{STREAMER}.stream_output": (HookType.AROUND, steps.stream_output),
    f"{SCHEDULER}.flush_cache": (HookType.AROUND, steps.flush_cache),
    f"{OBSERVER}.session_held_tokens": (HookType.AFTER, steps.session_held_tokens),
    f"{CHECKER}._get_total_uncached_sizes": (HookType.AFTER, steps.get_total_uncached_sizes),
}
