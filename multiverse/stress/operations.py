"""What an operator does to a running server: pauses, resets, new weights. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple


class Call(NamedTuple):
    """One request of an operator.

    Attributes:
        pause: seconds to let pass after it.
        refused_while: when the host may answer 400.
    """

    path: str
    body: Mapping[str, Any] | None = None
    pause: float = 0.0
    refused_while: Literal["never", "busy", "grammars are compiled"] = "never"


class Operation(NamedTuple):
    """Calls in order. `aborts`: whether answers that run meanwhile may be cut."""

    name: str
    calls: tuple[Call, ...]
    aborts: bool = False


OPERATIONS: dict[str, tuple[Operation, ...]] = {
    "vllm": (
        Operation("reset the prefix cache", (Call("/reset_prefix_cache"),)),
        Operation("reset running requests", (Call("/reset_prefix_cache?reset_running_requests=true"),)),
        Operation("pause and keep", (Call("/pause?mode=keep", None, 0.3), Call("/resume"))),
        Operation("pause and wait", (Call("/pause?mode=wait", None, 0.1), Call("/resume"))),
        Operation("pause and abort", (Call("/pause?mode=abort", None, 0.1), Call("/resume")), aborts=True),
        Operation(
            "the same weights again",
            (
                Call("/pause?mode=keep"),
                Call("/collective_rpc", {"method": "reload_weights"}),
                Call("/reset_prefix_cache?reset_running_requests=true"),
                Call("/resume"),
            ),
        ),
    ),
    "sglang": (
        Operation("flush", (Call("/flush_cache", refused_while="busy"),)),
        Operation(
            "pause in place", (Call("/pause_generation", {"mode": "in_place"}, 0.3), Call("/continue_generation", {}))
        ),
        Operation(
            "pause and retract",
            (
                Call("/pause_generation", {"mode": "retract"}, 0.3),
                Call("/flush_cache", refused_while="grammars are compiled"),
                Call("/continue_generation", {}),
            ),
        ),
        Operation(
            "the same weights again",
            (
                Call("/pause_generation", {"mode": "retract"}),
                Call(
                    "/update_weights_from_disk",
                    {"model_path": "MODEL", "flush_cache": True},
                    refused_while="grammars are compiled",
                ),
                Call("/continue_generation", {}),
            ),
        ),
        Operation("abort all", (Call("/abort_request", {"abort_all": True}),), aborts=True),
    ),
}
"""By host. `MODEL` stands for the path of the served model."""
