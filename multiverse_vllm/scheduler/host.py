"""What the scheduler room touches of vLLM's scheduler and of what that has, as types; rows of the hook table, all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from vllm import SamplingParams
from vllm.lora.request import LoRARequest
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.request_queue import SchedulingPolicy
from vllm.v1.metrics.stats import PrefillStats
from vllm.v1.request import RequestStatus


class Request(Protocol):
    """vLLM's request, of a client or of a branch."""

    request_id: str
    client_index: int
    priority: int
    arrival_time: float
    status: RequestStatus
    stop_reason: int | str | None
    sampling_params: SamplingParams
    lora_request: LoRARequest | None
    cache_salt: str | None
    mm_features: list[object]
    max_tokens: int
    resumable: bool
    skip_reading_prefix_cache: bool
    prefill_stats: PrefillStats | None
    prompt_token_ids: list[int] | None
    _all_token_ids: list[int]
    _output_token_ids: list[int]
    num_prompt_tokens: int
    num_computed_tokens: int
    num_in_flight_tokens: int
    num_stale_output_tokens: int
    num_output_placeholders: int
    drop_stale_output: bool
    next_decode_eligible_step: int
    spec_token_ids: list[int]
    block_hashes: list[bytes]
    _block_hasher: Callable[[Request], list[bytes]] | None

    @property
    def all_token_ids(self) -> Sequence[int]: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def num_output_tokens(self) -> int: ...
    def append_output_token_ids(self, token_ids: int | list[int]) -> None: ...
    def update_block_hashes(self) -> None: ...
    def is_finished(self) -> bool: ...


class Block(Protocol):
    """A KV block; free while nothing refers to it."""

    block_id: int
    ref_cnt: int
    is_null: bool


class BlockPool(Protocol):
    """All KV blocks, with the prefix cache."""

    blocks: list[Block]
    null_block: Block
    num_gpu_blocks: int

    def get_num_free_blocks(self) -> int: ...
    def get_new_blocks(self, num_blocks: int) -> list[Block]: ...
    def touch(self, blocks: list[Block]) -> None: ...
    def free_blocks(self, ordered_blocks: Iterable[Block]) -> None: ...
    def evict_blocks(self, block_ids: set[int]) -> None: ...
    def get_cached_block(self, block_hash: bytes, kv_cache_group_ids: list[int]) -> list[Block] | None: ...


class BlockManager(Protocol):
    """Who has which blocks, by request id; copies of blocks that workers have yet to make."""

    block_size: int
    req_to_blocks: dict[str, list[Block]]
    num_cached_block: dict[str, int]
    _pending_cow_copies: list[tuple[Block, Block]]

    def take_pending_cow_copies(self) -> list[tuple[Block, Block]]: ...


class Frees(Protocol):
    """What gives back all that a request holds of one kind."""

    def free(self, request: Request) -> None: ...


class RequestQueue(Protocol):
    """Requests that wait."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Request]: ...
    def add_request(self, request: Request) -> None: ...
    def prepend_requests(self, requests: Iterable[Request]) -> None: ...
    def remove_requests(self, requests: Iterable[Request]) -> None: ...


class HostScheduler(Protocol):
    """vLLM's scheduler. A request stands in `running` or in one of `waiting` and `kv_holding_waiting`."""

    requests: dict[str, Request]
    running: list[Request]
    waiting: RequestQueue
    kv_holding_waiting: RequestQueue
    deferred_waiting: set[Request]
    finished_req_ids: set[str]
    kv_cache_manager: Frees
    encoder_cache_manager: Frees
    deferred_frees: Iterable[tuple[object, list[Block]]]
    policy: SchedulingPolicy
    _pause_state: PauseState
    max_model_len: int
    use_v2_model_runner: bool
    num_spec_tokens: int

    def _enqueue_waiting_request(self, request: Request) -> None: ...


Finish = Callable[[list[str], object], list[Request]]
"""vLLM's own `finish_requests`, which knows no trees: by ids of requests that it knows, and with a status."""
