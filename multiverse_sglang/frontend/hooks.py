"""Rows of the hook table (`multiverse_sglang/hooks.py`): SGLang's HTTP server, and the front end of its programs."""

from __future__ import annotations

from multiverse_sglang.rows import FIELDS, ROUTE, reads, wraps

CHAT = "sglang.srt.entrypoints.openai.serving_chat:OpenAIServingChat"
COMPLETION = "sglang.srt.entrypoints.openai.serving_completions:OpenAIServingCompletion"
EXECUTOR = "sglang.lang.interpreter:StreamExecutor"
ENDPOINT = "sglang.lang.backend.runtime_endpoint:RuntimeEndpoint"
_STATES = "a front end that tells its server which state makes a request, and which were forked from it"

FRONT_END = (
    wraps(f"{EXECUTOR}.fork", ("size", "position_ids_offset"),
          "call `fork_program` of the backend, which the front end declares and never calls", _STATES),
    reads(EXECUTOR, ("sid", "text_", "images_", "backend", "use_thread", "worker"), "know a state", _STATES),
    wraps(f"{ENDPOINT}._add_images", ("s", "data"), "name the state that makes a request", _STATES),
    reads(f"{ENDPOINT}._assert_success", ("res",), "report what the server refuses", "nothing"),
    wraps(f"{ENDPOINT}.concatenate_and_append", ("src_rids", "dst_rid"), "name states as the server does", _STATES,
          replaced=True),
    wraps("sglang.lang.backend.base_backend:BaseBackend.fork_program", ("src", "dst", "position_ids_offset"),
          "tell the server of a fork", _STATES),
    wraps("sglang.lang.backend.base_backend:BaseBackend.end_program", ("s",), "tell it of the end", _STATES),
    reads(f"{EXECUTOR}.get_meta_info", ("name",), "read what branches said", ROUTE),
    reads(f"{ENDPOINT}.commit_lazy_operations", ("s",), "compute what forks have in common", ROUTE),
    reads("sglang.utils:http_request", ("url", "json", "api_key", "verify"), "call the server", "nothing"),
)  # fmt: skip
"""What the backend of programs (`programs/endpoint.py`) touches in their own process, maybe without a server."""

API_HOOKS = (
    wraps(f"{CHAT}._generate_chat_stream", ("adapted_request", "request", "raw_request"), "events, trees and figures",
          FIELDS),
    wraps(f"{CHAT}._handle_non_streaming_request", ("adapted_request", "request", "raw_request"), "trees and figures",
          FIELDS),
    wraps(f"{COMPLETION}._generate_completion_stream", ("adapted_request", "request", "raw_request"),
          "events, trees and figures", FIELDS),
    wraps(f"{COMPLETION}._handle_non_streaming_request", ("adapted_request", "request", "raw_request"),
          "trees and figures", FIELDS),
    reads("sglang.srt.entrypoints.http_server:app", (), "take the field out of requests; add routes", FIELDS),
    reads("sglang.srt.entrypoints.http_server:get_global_state", (), "find the server's states", ROUTE),
    reads("sglang.srt.entrypoints.http_server:_GlobalState", ("tokenizer_manager",), "find the server's states", ROUTE),
)  # fmt: skip
"""Of processes that serve HTTP only: their modules take seconds to import."""
