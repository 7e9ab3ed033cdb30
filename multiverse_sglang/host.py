"""SGLang's objects, as far as the adapter touches them: types for its own code. What SGLang really has, the hook table
says and checks. What is `object` here is handed on as it is."""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol, TypeAlias

import torch

FinishReason: TypeAlias = Any
Logprobs: TypeAlias = Any
ForwardBatch: TypeAlias = Any
ModelRunner: TypeAlias = Any
ServerArgs: TypeAlias = Any
Message: TypeAlias = Any
Result: TypeAlias = Any
"""By name only: they are read in one place, or full of tensors. A `Message` is one of SGLang's to its scheduler."""

# --- requests --------------------------------------------------------------------------------------------------------


class KvInfo(Protocol):
    """What a request has in the KV pool, in tokens; its row is an index into `RowPool.req_to_token`."""

    req_pool_idx: int
    cache_protected_len: int
    kv_committed_len: int
    kv_allocated_len: int

    @property
    def holds_kv(self) -> bool: ...
    def mark_kv_released(self) -> None: ...


class SamplingParams(Protocol):
    max_new_tokens: int
    min_new_tokens: int
    stop_regex_strs: list[str]
    stop_strs: list[str] | None
    stop_token_ids: Sequence[int] | None
    no_stop_trim: bool
    sampling_seed: int | None
    custom_params: object


class Request(Protocol):
    """Of the scheduler: a client's, or a run."""

    rid: str
    origin_input_ids: array[int]
    output_ids: array[int]
    full_untruncated_fill_ids: array[int]
    sampling_params: SamplingParams
    stream: bool
    priority: int
    return_logprob: bool
    logprob: Logprobs
    logprob_start_len: int
    kv: KvInfo
    lock: object
    prefix_len: int
    cached_tokens: int
    skip_radix_cache_insert: bool
    last_node: object
    grammar: object
    tokenizer: object
    eos_token_ids: Sequence[int] | None
    extra_key: str | None
    cache_salt: str | None
    lora_id: str | None
    time_stats: Any
    weight_version_events: list[Any]
    finished_reason: FinishReason | None
    to_finish: FinishReason | None
    beam_group: object | None
    is_retracted: bool
    finished_len: int | None
    spec_num_correct_drafts: int
    finished_output: bool
    custom_logit_processor: object

    @property
    def seqlen(self) -> int: ...
    def finished(self) -> bool: ...
    def check_match_stop_str_prefix(self) -> bool: ...


class GenerateRequest(Protocol):
    """Of the front end, on its way to the scheduler."""

    rid: str | list[str] | None
    text: str | list[str] | None
    input_ids: list[int] | None
    sampling_params: Any
    image_data: object
    video_data: object
    audio_data: object


# --- batches ---------------------------------------------------------------------------------------------------------


class Batch(Protocol):
    """Requests that are computed together; one entry of each list per request."""

    reqs: list[Request]
    prefix_lens: list[int]
    extend_lens: list[int]
    forward_mode: Any
    enable_overlap: bool
    tree_cache: RadixCache

    batch_is_full: bool
    return_logprob: bool
    token_ids_logprobs: list[Any] | None
    multimodal_inputs: Sequence[object] | None

    def is_empty(self) -> bool: ...
    def filter_batch(self, *, keep_indices: list[int]) -> None: ...
    def merge_batch(self, other: Batch) -> None: ...


class Plan(Protocol):
    batch_to_run: Batch | None
    running_batch: Batch


# --- memory ----------------------------------------------------------------------------------------------------------


class Allocator(Protocol):
    page_size: int

    def get_kvcache(self) -> Any: ...
    def available_size(self) -> int: ...
    def alloc(self, need_size: int) -> torch.Tensor | None: ...
    def free(self, free_index: torch.Tensor) -> None: ...
    def evict_to_free_tokens(self, tree_cache: RadixCache, num_tokens: int) -> None: ...
    def get_all_free_pages(self) -> torch.Tensor | None: ...


class RowPool(Protocol):
    """`req_to_token` is int32 `[rows, tokens]`: the slots of each request."""

    req_to_token: torch.Tensor
    size: int
    device: str

    def available_size(self) -> int: ...
    def alloc_rows(self, need_size: int) -> list[int]: ...
    def free_rows(self, indices: list[int]) -> None: ...
    def free(self, req: Request) -> None: ...


class RadixCache(Protocol):
    """The radix tree. Sizes are in slots."""

    def evictable_size(self) -> int: ...
    def protected_size(self) -> int: ...
    def supports_prefix_sharing(self) -> bool: ...
    def insert(self, params: object) -> object: ...
    def lock(self, node: object) -> object: ...
    def unlock(self, lock: object) -> None: ...
    def root_node_handle(self, extra_key: object) -> object: ...
    def prefix_device_indices(self, req: Request) -> torch.Tensor: ...


class HasRadixCache(Protocol):
    tree_cache: RadixCache


# --- processes -------------------------------------------------------------------------------------------------------


class Scheduler(Protocol):
    server_args: ServerArgs
    model_config: Any
    tokenizer: Any
    tp_worker: Any
    tree_cache: RadixCache
    token_to_kv_pool_allocator: Allocator
    req_to_token_pool: RowPool
    max_total_num_tokens: int
    max_req_len: int
    max_new_tokens_limit: int | None
    page_size: int
    waiting_queue: list[Request]
    running_batch: Batch
    last_batch: Batch | None
    chunked_req: Request | None
    output_streamer: Any
    invariant_checker: Any
    pool_stats_observer: Any
    enable_overlap: bool
    enable_priority_scheduling: bool
    schedule_low_priority_values_first: bool
    spec_algorithm: Any
    schedule_stream: Any
    forward_stream: Any
    forward_stream_ctx: Any
    _engine_paused: bool
    gracefully_exit: bool
    ingest_requests: Any
    request_receiver: Any
    idle_sleeper: Any
    metrics_collector: Any
    metrics_reporter: Any

    def is_fully_idle(self, for_health_check: bool = False, ignore_waiting: bool = False) -> bool: ...
    def _build_hisparse_decode_batch(self, reqs: list[Request]) -> Batch: ...
    def handle_generate_request(self, recv_req: object) -> None: ...
    def run_event_loop(self) -> None: ...
    def flush_cache(self) -> bool: ...


class TokenizerManager(Protocol):
    tokenizer: Any
    context_len: int
    rid_to_state: dict[str, object]

    def abort_request(self, rid: str) -> None: ...
    def generate_request(self, obj: object, request: object) -> AsyncGenerator[Any, None]: ...
    def _dispatch_to_scheduler(self, obj: object) -> None: ...
