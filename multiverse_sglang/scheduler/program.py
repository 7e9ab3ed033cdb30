"""What the server says about a request that a state of a program makes."""

from __future__ import annotations

from dataclasses import dataclass

from multiverse.decoding.program import Spans
from multiverse_sglang.channels import PROGRAM
from multiverse_sglang.host import Request


@dataclass(frozen=True)
class Program:
    """What the server says about a request that a state of a program makes (`frontend.program_states`).

    Attributes:
        state: key of the state.
        spans: the blocks that were joined so far.
        shared: of a branch, how many tokens it has in common with what it was forked from; its KV is retained.
        branches: keys of the states that this request joins.
    """

    state: str
    spans: Spans
    shared: int | None
    branches: tuple[str, ...]


def program_of(request: Request) -> Program | None:
    """What the server says about `request`, if it belongs to a state of a program."""
    parameters = request.sampling_params.custom_params
    found = parameters.get(PROGRAM) if isinstance(parameters, dict) else None
    if found is None:
        return None
    if found["shared"] is not None:
        request.skip_radix_cache_insert = True  # a branch retains its KV for the join
    return Program(found["state"], found["spans"], found["shared"], tuple(found["branches"]))
