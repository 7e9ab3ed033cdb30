"""Requests that nothing is done for as long as they sample no tag: most of them, and most tokens.

SGLang serves them by itself. Each step its sampled tokens are looked at once, all together. Whoever is about to get a
tag is enrolled before SGLang hands it out, and is then as if it had been watched from its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from multiverse.serving.options import Options
from multiverse_sglang.channels import DEFERRED
from multiverse_sglang.host import Batch, Request, Result


@dataclass(frozen=True, slots=True)
class Deferred:
    """What is known of a request that may fork and has sampled no tag so far.

    Attributes:
        options: the client's, on top of the server's.
        asked: whether the client gave options, and so gets a record in any case.
        rank, arrived: who comes first when memory is short (`multiverse.serving.pressure`).
        created: when it came, in monotonic seconds.
        answer: called with the request once SGLang has ended it, if it was asked for a record.
    """

    options: Options
    asked: bool
    rank: int
    arrived: float
    created: float
    answer: Callable[[Request], None]


def deferred_of(request: Request) -> Deferred | None:
    """What is known of `request`, if it is deferred."""
    found: Deferred | None = getattr(request, DEFERRED, None)
    return found


def watch(deciding: frozenset[int], batch: Batch, sampled: Sequence[int], enrol: Callable[[Request], None]) -> None:
    """Before SGLang hands out a step's tokens: `enrol` the requests that get the first of the `deciding` ones."""
    if deciding.isdisjoint(sampled):
        return
    for request, token in zip(batch.reqs, sampled, strict=False):  # beams have rows without a request
        if token in deciding and deferred_of(request) is not None and not request.finished():
            enrol(request)


def sampled_tokens(result: Result) -> Sequence[int]:
    """The tokens of a step, one for each row."""
    if result.next_token_ids is None:  # nothing was to be computed
        return ()
    if result.copy_done is not None:
        result.copy_done.synchronize()  # as SGLang does next
    found: Sequence[int] = result.next_token_ids.tolist()
    return found
